/// A JSON value (RFC 8259), for records and replies of some kilobytes.
///
/// By hand, though Foundation's coders are linked: the first record that a process writes and reads costs 0.26 million
/// instructions here and 1.0 million there, where `list` has 12.7 million in all; every command and every server of a device
/// would pay that. Later records cost the same, 0.18 million.
///
/// An object keeps the order of its members. Numbers without fraction and exponent are integers, wide enough for signed
/// and unsigned 64-bit values.
package enum JSONValue: Equatable, Sendable {
    case null
    case bool(Bool)
    case integer(Int128)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([Member])

    package struct Member: Equatable, Sendable {
        package var name: String
        package var value: JSONValue

        package init(_ name: String, _ value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    package init(_ value: some FixedWidthInteger) { self = .integer(Int128(clamping: value)) }

    /// The first member of this name; nil where there is none, or this is no object.
    package subscript(name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }

    package var text: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    /// The texts of an array; what else is in it is left out.
    package var texts: [String]? {
        guard case .array(let values) = self else { return nil }
        return values.compactMap(\.text)
    }

    package var truth: Bool? {
        guard case .bool(let truth) = self else { return nil }
        return truth
    }

    /// nil where the value is no integer or does not fit.
    package func integer<Integer: FixedWidthInteger>(as type: Integer.Type = Integer.self) -> Integer? {
        guard case .integer(let value) = self else { return nil }
        return Integer(exactly: value)
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral {
    package init(stringLiteral value: String) { self = .string(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(integerLiteral value: Int64) { self = .integer(Int128(value)) }
}

extension JSONValue: ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral {
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(elements.map { Member($0.0, $0.1) })
    }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
}

extension JSONValue: CustomStringConvertible {
    /// The value as one line of JSON.
    package var description: String {
        var line = ""
        append(to: &line)
        return line
    }

    private func append(to line: inout String) {
        switch self {
        case .null: line += "null"
        case .bool(let truth): line += truth ? "true" : "false"
        case .integer(let value): line += "\(value)"
        // JSON has no infinities.
        case .number(let value): line += value.isFinite ? "\(value)" : "null"
        case .string(let text): Self.appendQuoted(text, to: &line)
        case .array(let elements):
            line += "["
            for (index, element) in elements.enumerated() {
                if index > 0 { line += "," }
                element.append(to: &line)
            }
            line += "]"
        case .object(let members):
            line += "{"
            for (index, member) in members.enumerated() {
                if index > 0 { line += "," }
                Self.appendQuoted(member.name, to: &line)
                line += ":"
                member.value.append(to: &line)
            }
            line += "}"
        }
    }

    private static func appendQuoted(_ text: String, to line: inout String) {
        line += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": line += "\\\""
            case "\\": line += "\\\\"
            case "\n": line += "\\n"
            case "\r": line += "\\r"
            case "\t": line += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let digits = String(scalar.value, radix: 16)
                line += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: line.unicodeScalars.append(scalar)
            }
        }
        line += "\""
    }
}
