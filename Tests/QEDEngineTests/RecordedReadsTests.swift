import Foundation
import TestSupport
import Testing

@testable import QEDChain
@testable import QEDEngine

@Suite struct RecordedReadsTests {
    private func recorded(_ ranges: [Range<UInt64>]) -> [Range<UInt64>] {
        var reads = RecordedReads()
        for range in ranges { reads.note(range, milliseconds: 0) }
        return reads.take().map(\.range)
    }

    @Test("what goes on where a recent one ends is one with it, and nothing is recorded twice")
    func merged() {
        #expect(recorded([0..<512, 512..<1024]) == [0..<1024])
        #expect(recorded([512..<1024, 0..<512]) == [0..<1024])
        #expect(recorded([0..<512, 4096..<8192, 512..<1024, 8192..<8704]) == [0..<1024, 4096..<8704])
        #expect(recorded([0..<4096, 512..<1024, 0..<4096]) == [0..<4096])
        #expect(recorded([4096..<8192, 0..<16384]) == [0..<16384])
        #expect(recorded([512..<1024, 2048..<4096, 0..<8192]) == [0..<1024, 1024..<8192])
        #expect(recorded([0..<512, 512..<512]) == [0..<512])
        var reads = RecordedReads()
        reads.note(0..<512, milliseconds: 3)
        #expect(reads.take() == [RecordedRead(milliseconds: 3, range: 0..<512)])
        // What was taken is not changed any more, and not told again.
        reads.note(0..<1024, milliseconds: 5)
        #expect(reads.take() == [RecordedRead(milliseconds: 5, range: 512..<1024)])
        #expect(reads.take().isEmpty)
    }

    @Test("it covers what was read, whatever the order, each byte once")
    func covers() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            var expected = Set<UInt64>()
            var reads = RecordedReads()
            var got: [UInt64] = []
            for number in 0..<100 {
                let start = UInt64.random(in: 0..<200, using: &random)
                let range = start..<start + UInt64.random(in: 0..<20, using: &random)
                expected.formUnion(range)
                reads.note(range, milliseconds: 0)
                if number % 10 == 9 { got += reads.take().flatMap(\.range) }
            }
            #expect(got.count == expected.count && Set(got) == expected)
        }
    }

    @Test("no recording has more ranges than its limit")
    func bounded() {
        var reads = RecordedReads()
        for number in 0..<UInt64(RecordedReads.limit) + 100 { reads.note(number * 1024..<number * 1024 + 512, milliseconds: 0) }
        #expect(reads.isFull && reads.take().count == RecordedReads.limit)
        reads.note(1 << 40..<1 << 41, milliseconds: 0)
        #expect(reads.take().isEmpty)
    }

    @Test("an engine tells what comes from the bottom of the chain; with copies on read once", arguments: [false, true])
    func engine(keepsReads: Bool) throws {
        let scratch = try TemporaryDirectory()
        let (base, overlay) = (scratch.path("base.raw"), scratch.path("overlay.qed"))
        #expect(FileManager.default.createFile(atPath: base, contents: Data(repeating: 7, count: 1 << 20)))
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", overlay, "2M"])
        var options = ImageOptions()
        options.keepsReads = keepsReads
        let recorder = ReadRecorder { 42 }
        options.recorder = recorder
        let engine = try LocalEngine(path: overlay, options: options)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        func perform(_ operation: QEDEngine.BlockOperation, _ offset: UInt64, _ count: UInt64) {
            #expect(engine.perform([BlockRequest(operation, deviceOffset: offset, byteCount: count, buffer: buffer)]) == [0])
        }
        // Written before, so not read from there.
        perform(.write, 0, 65536)
        perform(.read, 0, 131_072)
        perform(.read, 65536, 4096)
        perform(.read, 1 << 20, 4096)
        #expect(recorder.take() == [RecordedRead(milliseconds: 42, range: 65536..<131_072)])
        // Of a part of a cluster, around which the rest is read.
        perform(.write, 196_608, 65024)
        #expect(recorder.take().map(\.range) == [261_632..<262_144])
        perform(.read, 524_288, 4096)
        #expect(recorder.take().map(\.range) == [524_288..<(keepsReads ? 589_824 : 528_384)])
        try engine.close()
    }
}
