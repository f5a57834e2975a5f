extension JSONValue {
    /// Reads one JSON value that fills the text, apart from white space around it.
    ///
    /// nil for anything else, however wrong: the text may come from a damaged file or any program. Values nested more
    /// than 32 deep are refused; the caller bounds the length.
    package init?(parsing text: some Collection<UInt8>) {
        var parser = JSONParser(Array(text))
        guard let value = try? parser.document() else { return nil }
        self = value
    }

    package init?(parsing text: String) { self.init(parsing: text.utf8) }
}

/// A recursive-descent reader of JSON.
private struct JSONParser {
    struct Malformed: Error {}

    private static let deepestNesting = 32

    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func document() throws(Malformed) -> JSONValue {
        let value = try value(nesting: 0)
        skipSpace()
        guard position == bytes.count else { throw Malformed() }
        return value
    }

    private mutating func value(nesting: Int) throws(Malformed) -> JSONValue {
        guard nesting <= Self.deepestNesting else { throw Malformed() }
        skipSpace()
        switch try peek() {
        case UInt8(ascii: "{"): return try object(nesting: nesting)
        case UInt8(ascii: "["): return try array(nesting: nesting)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func object(nesting: Int) throws(Malformed) -> JSONValue {
        try expect("{")
        var members: [JSONValue.Member] = []
        skipSpace()
        if take("}") { return .object(members) }
        repeat {
            skipSpace()
            let name = try string()
            skipSpace()
            try expect(":")
            members.append(.init(name, try value(nesting: nesting + 1)))
            skipSpace()
        } while take(",")
        try expect("}")
        return .object(members)
    }

    private mutating func array(nesting: Int) throws(Malformed) -> JSONValue {
        try expect("[")
        var elements: [JSONValue] = []
        skipSpace()
        if take("]") { return .array(elements) }
        repeat {
            elements.append(try value(nesting: nesting + 1))
            skipSpace()
        } while take(",")
        try expect("]")
        return .array(elements)
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws(Malformed) -> JSONValue {
        let letters = word.withUTF8Buffer { Array($0) }
        guard bytes[position...].starts(with: letters) else { throw Malformed() }
        position += letters.count
        return value
    }

    private mutating func number() throws(Malformed) -> JSONValue {
        let start = position
        _ = take("-")
        let integerStart = position
        let integerDigits = skipDigits()
        guard integerDigits > 0, integerDigits == 1 || bytes[integerStart] != UInt8(ascii: "0") else {
            throw Malformed()
        }
        var isInteger = true
        if take(".") {
            isInteger = false
            guard skipDigits() > 0 else { throw Malformed() }
        }
        if take("e") || take("E") {
            isInteger = false
            if !take("+") { _ = take("-") }
            guard skipDigits() > 0 else { throw Malformed() }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let value = Int128(text) { return .integer(value) }
        guard let value = Double(text) else { throw Malformed() }
        return .number(value)
    }

    private mutating func string() throws(Malformed) -> String {
        try expect("\"")
        var content: [UInt8] = []
        while true {
            let byte = try next()
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: content, as: UTF8.self) else { throw Malformed() }
                return text
            case UInt8(ascii: "\\"): content.append(contentsOf: try escape())
            case 0..<0x20: throw Malformed()
            default: content.append(byte)
            }
        }
    }

    private mutating func escape() throws(Malformed) -> [UInt8] {
        switch try next() {
        case UInt8(ascii: "\""): return [UInt8(ascii: "\"")]
        case UInt8(ascii: "\\"): return [UInt8(ascii: "\\")]
        case UInt8(ascii: "/"): return [UInt8(ascii: "/")]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0c]
        case UInt8(ascii: "n"): return [0x0a]
        case UInt8(ascii: "r"): return [0x0d]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"):
            let unit = try hexadecimal()
            guard unit & 0xf800 == 0xd800 else { return try encoded(unit) }
            // Beyond 16 bits: two halves of ten bits each.
            guard unit < 0xdc00, take("\\"), take("u") else { throw Malformed() }
            let low = try hexadecimal()
            guard low & 0xfc00 == 0xdc00 else { throw Malformed() }
            return try encoded(0x10000 + (unit & 0x3ff) << 10 + low & 0x3ff)
        default: throw Malformed()
        }
    }

    private func encoded(_ value: UInt32) throws(Malformed) -> [UInt8] {
        guard let scalar = Unicode.Scalar(value) else { throw Malformed() }
        return Array(String(scalar).utf8)
    }

    private mutating func hexadecimal() throws(Malformed) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            let byte = try next()
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt32(byte - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt32(byte - UInt8(ascii: "a") + 10)
            case UInt8(ascii: "A")...UInt8(ascii: "F"): value = value << 4 | UInt32(byte - UInt8(ascii: "A") + 10)
            default: throw Malformed()
            }
        }
        return value
    }

    // Single bytes.

    private func peek() throws(Malformed) -> UInt8 {
        guard position < bytes.count else { throw Malformed() }
        return bytes[position]
    }

    private mutating func next() throws(Malformed) -> UInt8 {
        let byte = try peek()
        position += 1
        return byte
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard position < bytes.count, bytes[position] == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    private mutating func expect(_ character: Unicode.Scalar) throws(Malformed) {
        guard take(character) else { throw Malformed() }
    }

    private mutating func skipDigits() -> Int {
        let start = position
        while position < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[position]) {
            position += 1
        }
        return position - start
    }

    private mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[position]) { position += 1 }
    }
}
