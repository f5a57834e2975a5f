import ArgumentParser
import Foundation
import TestSupport
import Testing

@testable import qed_ublk

/// What the README, docs/, the manual and `--help` tell users to type is what the program understands. That it does what they
/// say is what `Tests/VM/scenarios/92-documented-examples.sh` shows, which runs all of it.
@Suite struct DocumentedExamplesTests {
    private static let repository = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")

    private struct Example: CustomStringConvertible {
        var place: String
        var words: [String]
        var description: String { "\(place): \(words.joined(separator: " "))" }
    }

    private static func pages() throws -> [(name: String, text: String)] {
        var paths = ["README.md", "packaging/qed-ublk@.service"]
        for (directory, ending) in [("docs", ".md"), ("packaging/man", "")] {
            let names = try FileManager.default.contentsOfDirectory(atPath: "\(repository)/\(directory)").sorted()
            paths += names.filter { $0.hasSuffix(ending) }.map { "\(directory)/\($0)" }
        }
        return try paths.map { ($0, String(decoding: try readFile("\(repository)/\($0)"), as: UTF8.self)) }
    }

    private static func examples() throws -> [Example] {
        var lines: [(place: String, line: Substring)] = []
        for (name, text) in try pages() {
            var isCode = !name.hasSuffix(".md")
            for line in text.split(separator: "\n") {
                if line.hasPrefix("```") { isCode.toggle() }
                if isCode { lines.append((name, line.drop(while: { $0 == " " }))) }
            }
        }
        for command in QedUblk.allCommands {
            let place = "\(command.name) --help"
            lines += helpExamples(of: command.type).map { (place, $0.dropFirst("Example: ".count).drop(while: { $0 == " " })) }
        }
        return lines.flatMap { place, line in
            let commands = ShellLine(line).commands.filter { $0.first == "qed-ublk" && $0.count > 1 }
            return commands.map { Example(place: place, words: Array($0.dropFirst())) }
        }
    }

    /// The lines from `Example:` on, up to an empty one.
    private static func helpExamples(of command: any ParsableCommand.Type) -> [Substring] {
        let lines = command.configuration.discussion.split(separator: "\n", omittingEmptySubsequences: false)
        let begin = lines.drop { !$0.hasPrefix("Example: ") }
        return Array(begin.prefix { !$0.isEmpty })
    }

    /// A longer one is broken where the terminal ends, and so is what is pasted.
    @Test func noExampleOfHelpIsBroken() {
        for command in QedUblk.allCommands {
            let examples = Self.helpExamples(of: command.type)
            #expect(!examples.isEmpty, "\(command.name)")
            for line in examples { #expect(line.count <= 80, "\(line)") }
        }
    }

    @Test func everyExampleIsUnderstood() throws {
        let examples = try Self.examples()
        #expect(examples.count > 60, "\(examples.count) were found")
        // A drawing of two processes.
        for example in examples where !["serve", "broker"].contains(example.words[0]) {
            #expect(throws: Never.self, "\(example)") { _ = try QedUblk.parseAsRoot(example.words) }
        }
    }

    private static func mentions() throws -> [Example] {
        var mentions: [Example] = []
        for page in try pages() {
            for mention in page.text.components(separatedBy: "qed-ublk ").dropFirst() {
                let word = mention.prefix { $0.isLowercase && $0.isASCII }
                let next = mention.dropFirst(word.count).first
                guard !word.isEmpty, next == "`" || next == "'" else { continue }
                mentions.append(Example(place: page.name, words: [String(word)]))
            }
        }
        return mentions
    }

    /// Also within sentences, where what comes after the command is left out.
    @Test func everyCommandThatIsNamedExists() throws {
        let names = Set(QedUblk.configuration.subcommands.compactMap { $0.configuration.commandName })
        let mentions = try Self.mentions()
        #expect(mentions.count > 10, "\(mentions.count) were found")
        let unknown = mentions.filter { !names.contains($0.words[0]) }
        #expect(unknown.isEmpty, "\(unknown)")
    }

    @Test func whatIsNotUnderstoodIsFound() {
        #expect(
            ShellLine("umount /mnt && qed-ublk add $(qed-ublk fork a b) 'c d' | x # qed-ublk e").commands == [
                ["umount", "/mnt"], ["qed-ublk", "fork", "a", "b"], ["qed-ublk", "add", "/substituted", "c d"], ["x"],
            ])
        #expect(throws: (any Error).self) { _ = try QedUblk.parseAsRoot(["add", "--no-such-option", "disk.qed"]) }
    }
}

/// A line as a shell would take it apart.
private struct ShellLine {
    /// Those within `$(…)` as well, which stand for one word.
    private(set) var commands: [[String]] = []
    private var words: [String] = []
    private var word: String?

    init(_ line: Substring) {
        var quote: Character?
        var rest = line
        while let character = rest.popFirst() {
            if let open = quote {
                if character == open { quote = nil } else { word?.append(character) }
                continue
            }
            switch character {
            case "'", "\"":
                quote = character
                word = word ?? ""
            case "$" where rest.first == "(":
                let inner = rest.dropFirst().prefix { $0 != ")" }
                commands += ShellLine(inner).commands
                rest = rest.dropFirst(inner.count + 2)
                word = (word ?? "") + "/substituted"
            case "#" where word == nil, ">":
                endCommand()
                return
            case "|", "&", ";": endCommand()
            case " ": endWord()
            default: word = (word ?? "") + String(character)
            }
        }
        endCommand()
    }

    private mutating func endWord() {
        if let word { words.append(word) }
        word = nil
    }

    private mutating func endCommand() {
        endWord()
        if !words.isEmpty { commands.append(words) }
        words = []
    }
}
