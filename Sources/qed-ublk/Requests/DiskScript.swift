/// One command of `qed-ublk io`, with the names and options that qemu-io has.
enum DiskScript: Equatable {
    struct Range: Equatable {
        var offset: UInt64
        var byteCount: UInt64
    }

    case read(Range, pattern: UInt8?, dump: Bool)
    case write(Range, pattern: UInt8, forcesUnitAccess: Bool)
    case writeZeroes(Range, unmap: Bool)
    case discard(Range)
    case flush
    case length
    case map

    var changesTheDisk: Bool {
        switch self {
        case .read, .length, .map: false
        case .write, .writeZeroes, .discard, .flush: true
        }
    }

    /// The part of the disk that it is about.
    var range: Range? {
        switch self {
        case .read(let range, _, _), .write(let range, _, _), .writeZeroes(let range, _), .discard(let range): range
        case .flush, .length, .map: nil
        }
    }

    /// For the help text.
    static let summary = """
        read [-P pattern] [-v] OFFSET LENGTH: read; -P compares every byte with a number, -v shows them
        write [-P pattern] [-f] OFFSET LENGTH: write a byte (0xcd unless told otherwise); -f as FUA
        write -z [-u] OFFSET LENGTH: write zeroes; -u gives their space back
        discard OFFSET LENGTH
        flush | length | map
        """

    /// - Throws: what is wrong with `text`, as the end of a sentence about it.
    static func parse(_ text: String) throws(DiskScriptError) -> DiskScript {
        var words = text.split(whereSeparator: \.isWhitespace).map(String.init)
        guard !words.isEmpty else { throw .empty }
        let name = words.removeFirst()
        var options = Options()
        try options.take(&words)
        let script: DiskScript
        switch name {
        case "read", "r":
            try options.allow("P", "v", "q")
            script = .read(try range(&words), pattern: options.pattern, dump: options.flags.contains("v"))
        case "write", "w":
            try options.allow(options.flags.contains("z") ? ["z", "u", "q"] : ["P", "f", "q"])
            let range = try range(&words)
            script =
                options.flags.contains("z")
                ? .writeZeroes(range, unmap: options.flags.contains("u"))
                : .write(range, pattern: options.pattern ?? 0xcd, forcesUnitAccess: options.flags.contains("f"))
        case "discard", "d":
            try options.allow("q")
            script = .discard(try range(&words))
        case "flush", "f": script = .flush
        case "length", "l": script = .length
        case "map": script = .map
        default: throw .unknownCommand(name)
        }
        if script.range == nil { try options.allow() }
        guard words.isEmpty else { throw .tooMuch(words[0]) }
        return script
    }

    private static func range(_ words: inout [String]) throws(DiskScriptError) -> Range {
        guard words.count >= 2 else { throw .rangeMissing }
        let range = Range(offset: try size(words[0]), byteCount: try size(words[1]))
        words.removeFirst(2)
        guard !range.offset.addingReportingOverflow(range.byteCount).overflow else {
            throw .notASize(words.first ?? "")
        }
        return range
    }

    private static func size(_ text: String) throws(DiskScriptError) -> UInt64 {
        if text.hasPrefix("0x"), let value = UInt64(text.dropFirst(2), radix: 16) { return value }
        do { return try SizeArgument.parse(text) } catch { throw .notASize(text) }
    }

    /// The options in front of the range.
    private struct Options {
        var flags: Set<String> = []
        var pattern: UInt8?

        mutating func take(_ words: inout [String]) throws(DiskScriptError) {
            while let word = words.first, word.hasPrefix("-"), word.count > 1 {
                words.removeFirst()
                for letter in word.dropFirst() {
                    flags.insert(String(letter))
                    guard letter == "P" else { continue }
                    guard let text = words.first else { throw .notAPattern("") }
                    words.removeFirst()
                    let value = text.hasPrefix("0x") ? UInt8(text.dropFirst(2), radix: 16) : UInt8(text)
                    guard let value else { throw .notAPattern(text) }
                    pattern = value
                }
            }
        }

        func allow(_ names: String...) throws(DiskScriptError) { try allow(names) }

        func allow(_ names: [String]) throws(DiskScriptError) {
            if let other = flags.subtracting(names).sorted().first { throw .unknownOption(other) }
        }
    }
}

enum DiskScriptError: Error, Equatable, CustomStringConvertible {
    case empty
    case unknownCommand(String)
    case unknownOption(String)
    case rangeMissing
    case notASize(String)
    case notAPattern(String)
    case tooMuch(String)

    var description: String {
        switch self {
        case .empty: "a command is needed, such as 'read 0 4k'"
        case .unknownCommand(let name):
            "there is no command '\(name)'; there are read, write, discard, flush, length and map"
        case .unknownOption(let name): "the command has no option -\(name) there"
        case .rangeMissing: "it needs an offset and a length"
        case .notASize(let text): "'\(text)' is not a size; give bytes, or a number with K, M, G, T, P or E"
        case .notAPattern(let text): "'\(text)' is not a pattern; give a number from 0 to 255"
        case .tooMuch(let word): "'\(word)' is one word too many"
        }
    }
}
