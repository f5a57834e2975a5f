import Glibc

/// What has to outlive the power cut, in a folder on a disk that forgets nothing that it was told to keep.
struct Notes {
    let folder: String

    private static let noteBytes = 4096

    enum Name: String {
        /// What the sectors of the blocks must hold at least.
        case floors
        /// The seed and the first number of the boot's writes.
        case plan
        /// The last file that was synced.
        case files
    }

    private func path(_ name: Name) -> String { "\(folder)/\(name.rawValue)" }
    private func path(ofWriter writer: Int) -> String { "\(folder)/writer\(writer)" }

    var floors: [Int] {
        get throws { try numbers(in: path(.floors), count: BlockJudge.floorCount) }
    }

    /// nil before the first boot that writes.
    var plan: WritePlan? {
        get throws {
            let words = try numbers(in: path(.plan), count: 2)
            return words[1] == 0 ? nil : WritePlan(seed: UInt64(words[0]), firstNumber: words[1])
        }
    }

    func noted(ofWriter writer: Int) throws -> Int { try numbers(in: path(ofWriter: writer), count: 1)[0] }
    var notedFile: Int { get throws { try numbers(in: path(.files), count: 1)[0] } }

    func keep(floors: [Int]) throws { try keep(floors, in: path(.floors)) }
    func keep(_ plan: WritePlan?) throws { try keep([Int(plan?.seed ?? 0), plan?.firstNumber ?? 0], in: path(.plan)) }

    /// Nothing is noted of any writer, nor of files.
    func forgetProgress() throws {
        for writer in 0..<WritePlan.writers { try keep([0], in: path(ofWriter: writer)) }
        try keep([0], in: path(.files))
    }

    /// A note that is there, and each write of it on the disk when that returns.
    final class Note: Sendable {
        private let descriptor: Int32

        fileprivate init(path: String) throws(ProgramFailure) {
            descriptor = open(path, O_WRONLY | O_DSYNC | O_CLOEXEC)
            guard descriptor >= 0 else { throw ProgramFailure("open \(path)", errno) }
        }

        deinit { close(descriptor) }

        func set(_ number: Int) throws(ProgramFailure) {
            let bytes = Notes.bytes([number])
            guard bytes.withUnsafeBytes({ pwrite(descriptor, $0.baseAddress, $0.count, 0) }) == bytes.count else {
                throw ProgramFailure("write a note", errno)
            }
        }
    }

    func note(ofWriter writer: Int) throws(ProgramFailure) -> Note { try Note(path: path(ofWriter: writer)) }
    func noteOfFiles() throws(ProgramFailure) -> Note { try Note(path: path(.files)) }

    /// Numbers as words, filled up to whole blocks, so that the file keeps its length.
    private static func bytes(_ numbers: [Int]) -> [UInt8] {
        let text = Array(numbers.map(String.init).joined(separator: " ").utf8)
        let length = (text.count + noteBytes) / noteBytes * noteBytes
        return text + [UInt8](repeating: UInt8(ascii: " "), count: length - 1 - text.count) + [UInt8(ascii: "\n")]
    }

    private func numbers(in path: String, count: Int) throws -> [Int] {
        let words = String(decoding: try readFile(path), as: UTF8.self).split { $0 == " " || $0 == "\n" }
        let numbers = words.compactMap { Int($0) }
        guard numbers.count == count, words.count == count else {
            throw ProgramFailure("\(path) is not a note of \(count) numbers")
        }
        return numbers
    }

    private func keep(_ numbers: [Int], in path: String) throws {
        try writeFile(path, Notes.bytes(numbers))
    }
}
