import Glibc
import Simulation

/// Files whose names and contents count: file 3 has the lines 3, 4, 5 and so on, and at its end "end". Each is synced, given its
/// name, and noted when the folder is synced too.
enum NumberedFiles {
    static func content(_ number: Int, lines: Int) -> [UInt8] {
        var text = ""
        for line in number..<(number + lines) { text += "\(line)\n" }
        return Array((text + "end\n").utf8)
    }

    static func isWhole(_ content: [UInt8], number: Int) -> Bool {
        let lines = content.count { $0 == UInt8(ascii: "\n") } - 1
        return lines >= 0 && content == self.content(number, lines: lines)
    }

    /// Writes them one after the other, for ever.
    static func write(in folder: String, _ note: Notes.Note, seed: UInt64) throws(ProgramFailure) -> Never {
        var random = SeededRandom(seed: seed)
        var number = 0
        while true {
            number += 1
            try writeFile("\(folder)/new", content(number, lines: 1 + random.below(20_000)))
            guard rename("\(folder)/new", "\(folder)/\(number)") == 0 else {
                throw ProgramFailure("rename file \(number)", errno)
            }
            try syncFolder(folder)
            try note.set(number)
        }
    }

    /// - Returns: what is wrong with the first `count`; nil where all of them are whole.
    static func complaint(in folder: String, count: Int) -> String? {
        for number in 1..<(count + 1) {
            do throws(ProgramFailure) {
                guard isWhole(try readFile("\(folder)/\(number)"), number: number) else {
                    return "the file \(number), which had been synced, is not whole"
                }
            } catch {
                return "the file \(number), which had been synced: \(error)"
            }
        }
        return nil
    }
}
