import Platform
import Simulation
import Testing

@testable import QEDEngine

/// What is remembered of a raw file's holes is what the file has, in whatever order it was asked.
struct KnownDataTests {
    private static let fileSizeBytes: UInt64 = 4096

    /// A file of blocks, each data or hole, and what it answers.
    private struct File {
        var isData: [Bool]

        func nextData(from offset: UInt64) -> Range<UInt64> {
            var start = Int(offset)
            while start < isData.count, !isData[start] { start += 1 }
            var end = start
            while end < isData.count, isData[end] { end += 1 }
            return UInt64(start)..<UInt64(end)
        }

        func endOfHole(at offset: UInt64) -> UInt64? {
            guard !isData[Int(offset)] else { return nil }
            return max(nextData(from: offset).lowerBound, offset)
        }
    }

    @Test("every place is known after it was asked for, and as the file has it", arguments: 1...40 as ClosedRange<UInt64>)
    func learnsInAnyOrder(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var file = File(isData: [])
        while file.isData.count < Int(KnownDataTests.fileSizeBytes) {
            let count = 1 + random.below(seed % 2 == 0 ? 5 : 400)
            file.isData += Array(repeating: file.isData.last != true, count: count)
        }
        file.isData.removeLast(file.isData.count - Int(KnownDataTests.fileSizeBytes))
        var known = KnownData()
        var asked = 0
        for _ in 0..<6000 {
            let offset = UInt64(random.below(file.isData.count))
            if !known.knows(offset) {
                known.learn(file.nextData(from: offset), from: offset, fileSizeBytes: KnownDataTests.fileSizeBytes)
                asked += 1
            }
            #expect(known.knows(offset))
            #expect(known.endOfHole(at: offset) == file.endOfHole(at: offset))
            let other = UInt64(random.below(file.isData.count))
            if known.knows(other) { #expect(known.endOfHole(at: other) == file.endOfHole(at: other)) }
        }
        #expect(asked < file.isData.count)
    }

    @Test("a file that cannot tell, or that was cut, is all data and not asked again")
    func unknowable() {
        for answer in [nil, 100..<100, 0..<10] as [Range<UInt64>?] {
            var known = KnownData()
            known.learn(0..<50, from: 0, fileSizeBytes: 4096)
            known.learn(answer, from: 60, fileSizeBytes: 4096)
            #expect(known.knows(4000) && known.endOfHole(at: 60) == nil && known.endOfHole(at: 10) == nil)
        }
    }

    @Test("behind the last data there is one hole up to the end")
    func lastHole() {
        var known = KnownData()
        known.learn(4096..<4096, from: 100, fileSizeBytes: 4096)
        #expect(known.endOfHole(at: 100) == 4096 && known.endOfHole(at: 4095) == 4096)
        #expect(!known.knows(99) && !known.knows(4096))
    }

    @Test("what is remembered has a bound, and what was forgotten is learned again")
    func bound() {
        var known = KnownData()
        for number in 0..<UInt64(3 * KnownData.pieceLimit) {
            let start = number * 4
            known.learn(start + 1..<start + 2, from: start, fileSizeBytes: 1 << 30)
            #expect(known.endOfHole(at: start) == start + 1)
        }
        #expect(!known.knows(0))
        known.learn(1..<2, from: 0, fileSizeBytes: 1 << 30)
        #expect(known.endOfHole(at: 0) == 1)
    }

    @Test("a hole is asked for once, however many requests of whichever queue come upon it")
    func askedOnce() async {
        let shared = SharedKnownData()
        let questions = Lock(0)
        await withTaskGroup(of: Range<UInt64>?.self) { group in
            for number in 0..<32 as Range<UInt64> {
                group.addTask {
                    await shared.data(from: 100 + number % 2, fileSizeBytes: 4096) {
                        questions.withLock { $0 += 1 }
                        try? await Task.sleep(for: .milliseconds(20))
                        return 200..<300
                    }
                }
            }
            for await answer in group { #expect(answer == 200..<300) }
        }
        // The first may have asked from 101 on.
        #expect(questions.withLock { $0 } <= 2)
    }

    @Test("an answer that does not fit makes the next one ask, and that it cannot be told is told to all")
    func askedAgain() async {
        let shared = SharedKnownData()
        #expect(await shared.data(from: 0, fileSizeBytes: 4096) { 0..<50 } == 0..<50)
        #expect(await shared.data(from: 10, fileSizeBytes: 4096) { 7..<8 } == 10..<50)
        #expect(await shared.data(from: 50, fileSizeBytes: 4096) { 4096..<4096 } == 4096..<4096)
        #expect(await shared.data(from: 4000, fileSizeBytes: 4096) { 0..<1 } == 4096..<4096)
        let untold = SharedKnownData()
        #expect(await untold.data(from: 0, fileSizeBytes: 4096) { nil } == nil)
        #expect(await untold.data(from: 60, fileSizeBytes: 4096) { 60..<61 } == nil)
    }
}
