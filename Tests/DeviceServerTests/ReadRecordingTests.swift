import Foundation
import Logging
import QEDEngine
import TestSupport
import Testing

@testable import DeviceServer

/// What a recording may be, and what is none. What becomes of one is shown by `Tests/VM/scenarios/84-bases.sh`.
@Suite struct ReadRecordingTests {
    private func parse(_ text: String) throws(ReadRecordingFault) -> ReadRecording {
        try ReadRecording(parsing: Array(text.utf8))
    }

    private let recording = ReadRecording(
        diskSizeBytes: 1 << 20,
        reads: [
            RecordedRead(milliseconds: 0, range: 0..<4096), RecordedRead(milliseconds: 12, range: 65536..<131_072),
            RecordedRead(milliseconds: 12, range: (1 << 20) - 512..<1 << 20),
        ])
    private let text = "qed-ublk-reads 1 1048576\n0 0 4096\n12 65536 65536\n12 1048064 512\n"

    @Test("what is written is read, as far as its last whole line")
    func readBack() throws {
        #expect(ReadRecording.firstLine(diskSizeBytes: 1 << 20) + recording.reads.map(ReadRecording.line).joined() == text)
        #expect(try parse(text) == recording)
        var torn = recording
        torn.reads.removeLast()
        for count in 1..<"12 1048064 512\n".count { #expect(try parse(String(text.dropLast(count))) == torn) }
        #expect(try parse("qed-ublk-reads 1 512\n").reads.isEmpty)
    }

    @Test(
        "what is no recording has a reason",
        arguments: [
            ("", ReadRecordingFault.isNone), ("\n", .isNone), ("qed-ublk-reads 1 512", .isNone),
            ("qed-ublk-reads 2 512\n", .version),
            ("qed-ublk-reads 1 0\n", .isNone), ("qed-ublk-reads 1 -512\n", .isNone), ("qed-ublk-reads 1\n", .isNone),
            ("qed-ublk-reads 1 18446744073709551616\n", .isNone), ("QED\0\n1\n", .isNone), ("0 0 512\n", .isNone),
            ("qed-ublk-reads 1 1024\n\n", .line(2)), ("qed-ublk-reads 1 1024\n0 0 512\n0 512\n", .line(3)),
            ("qed-ublk-reads 1 1024\n0 0 0\n", .line(2)), ("qed-ublk-reads 1 1024\n0 +1 512\n", .line(2)),
            ("qed-ublk-reads 1 1024\n0  0 512\n", .line(2)), ("qed-ublk-reads 1 1024\n0 0 512 \n", .line(2)),
            ("qed-ublk-reads 1 1024\n0 1024 1\n", .outsideDisk(line: 2)),
            ("qed-ublk-reads 1 1024\n0 512 513\n", .outsideDisk(line: 2)),
            ("qed-ublk-reads 1 1024\n0 1 18446744073709551615\n", .outsideDisk(line: 2)),
        ])
    func none(text: String, fault: ReadRecordingFault) {
        #expect(throws: fault) { try parse(text) }
    }

    @Test("one that is too long is refused before it is looked at, and one of as many ranges as there can be is read")
    func length() throws {
        let lines = String(repeating: "0 0 512\n", count: RecordedReads.limit)
        #expect(try parse("qed-ublk-reads 1 1024\n" + lines).reads.count == RecordedReads.limit)
        #expect(throws: ReadRecordingFault.tooLong) { try parse("qed-ublk-reads 1 1024\n" + lines + "0 0 512\n") }
        #expect(throws: ReadRecordingFault.tooLong) {
            try ReadRecording(parsing: [UInt8](repeating: 0, count: ReadRecording.limitBytes + 1))
        }
        let scratch = try TemporaryDirectory()
        try require(["truncate", "-s", "1T", scratch.path("large")])
        #expect(throws: ReadRecordingError.self) { try ReadRecording(ofFileAt: scratch.path("large")) }
    }

    @Test("whatever a file has: it is a recording with ranges of its disk, or has a reason")
    func arbitrary() {
        var random = SystemRandomNumberGenerator()
        let pieces = ["0", "512", " ", "\n", "-", "x", "18446744073709551615", "1048576", "\0", "\u{e4}"].map { Array($0.utf8) }
        for _ in 0..<20_000 {
            var bytes = Array(text.utf8)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                let end = min(place + Int.random(in: 0...3, using: &random), bytes.count)
                bytes.replaceSubrange(place..<end, with: pieces.randomElement(using: &random) ?? [])
            }
            guard let read = try? ReadRecording(parsing: bytes) else { continue }
            #expect(read.ranges.allSatisfy { !$0.isEmpty && $0.upperBound <= read.diskSizeBytes })
        }
    }

    @Test("a file that has something is not written over, and one that is not used is as it was")
    func file() throws {
        let scratch = try TemporaryDirectory()
        let path = scratch.path("reads")
        let files = FileManager.default
        #expect(files.createFile(atPath: path, contents: Data("mine".utf8)))
        #expect(throws: ReadRecordingError.self) { try RecordingFile(path: path) }
        #expect(throws: ReadRecordingError.self) { try RecordingFile(path: scratch.path("")) }
        #expect(files.contents(atPath: path) == Data("mine".utf8))
        #expect(files.createFile(atPath: path, contents: nil))
        try RecordingFile(path: path).abandon()
        #expect(files.contents(atPath: path) == Data())
        try files.removeItem(atPath: path)
        try RecordingFile(path: path).abandon()
        #expect(!files.fileExists(atPath: path))
        let used = try RecordingFile(path: path)
        used.begin(diskSizeBytes: 1 << 20, log: Logger(label: "test"))
        used.end()
        #expect(try ReadRecording(ofFileAt: path) == ReadRecording(diskSizeBytes: 1 << 20))
    }
}
