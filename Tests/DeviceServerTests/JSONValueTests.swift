import Platform
import Testing

@testable import DeviceServer

struct JSONValueTests {
    private static let values: [(JSONValue, String)] = [
        (.null, "null"), (true, "true"), (false, "false"), (0, "0"), (-17, "-17"),
        (JSONValue(UInt64.max), "18446744073709551615"), (JSONValue(Int64.min), "-9223372036854775808"),
        (.number(0.5), "0.5"), (.number(1e20), "1e+20"), ("", "\"\""), ("käse 🧀", "\"käse 🧀\""),
        ("a\"b\\c", #""a\"b\\c""#), ("line\nend\r\t", #""line\nend\r\t""#),
        ("\u{1}\u{1f}\u{7f}", #""\u0001\u001f\u007f""#),
        ([], "[]"), ([1, [2], "x"], "[1,[2],\"x\"]"), (.object([]), "{}"),
        (["b": 1, "a": ["c": .null]], #"{"b":1,"a":{"c":null}}"#),
    ]

    @Test(arguments: values)
    func valuesAreWrittenAndReadBack(value: JSONValue, text: String) {
        #expect(value.description == text)
        #expect(JSONValue(parsing: text) == value)
    }

    private static let otherSpellings: [(String, JSONValue)] = [
        (" \t\r\n{ \"a\" : [ 1 , 2 ] } \n", ["a": [1, 2]]), (#""\u0041\/\b\f""#, "A/\u{8}\u{c}"),
        (#""\ud83e\uddc0""#, "🧀"), (#""\uD83E\uDDC0""#, "🧀"),
        ("-0", 0), ("1E2", .number(100)), ("1.5e-1", .number(0.15)),
    ]

    @Test(arguments: otherSpellings)
    func otherSpellingsAreRead(text: String, value: JSONValue) { #expect(JSONValue(parsing: text) == value) }

    private static let malformed = [
        "", " ", "{", "}", "[", "]", "[1", "[1,", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:2}",
        "nul", "nulll", "True", "tru", "01", "-", "+1", "1.", ".5", "1e", "1e+", "0x10", "1 2",
        "\"", "\"a", "\"\\", "\"\\x\"",
        "\"\\u12\"", "\"\\u12g4\"", "\"\\ud83e\"", "\"\\ud83ex\"", "\"\\ud83e\\n\"", "\"\\ud83e\\u0041\"",
        "\"\\udc00\"",
        "\"a\nb\"", "\"\u{0}\"", "{\"a\":1}{", "[1]]", "'a'", "NaN", "-Infinity",
    ]

    @Test(arguments: malformed)
    func malformedTextIsNoValue(text: String) { #expect(JSONValue(parsing: text) == nil) }

    @Test func invalidUTF8IsNoValue() {
        #expect(JSONValue(parsing: [0x22, 0xff, 0x22]) == nil)
        #expect(JSONValue(parsing: [0x22, 0xc3, 0x22]) == nil)
        #expect(JSONValue(parsing: [0xff]) == nil)
        #expect(JSONValue(parsing: [UInt8]()) == nil)
    }

    @Test func nestingIsBounded() {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(JSONValue(parsing: nested(32)) != nil)
        #expect(JSONValue(parsing: nested(34)) == nil)
        #expect(JSONValue(parsing: String(repeating: "[", count: 1_000_000)) == nil)
        #expect(JSONValue(parsing: String(repeating: "{\"a\":", count: 100_000)) == nil)
    }

    /// Every prefix of a document, and the document with each byte changed: no trap, and no value from a prefix.
    @Test func damagedDocumentsDoNotTrap() {
        let document = Array(#"{"a":[1,-2.5e3,"x\u00e9\ud83e\uddc0",true,null],"b":{"c":"d"}}"#.utf8)
        #expect(JSONValue(parsing: document) != nil)
        for length in document.indices { #expect(JSONValue(parsing: document[..<length]) == nil) }
        for index in document.indices {
            for replacement: UInt8 in [0, 0x22, 0x2c, 0x5c, 0x5d, 0x7d, 0x80, 0xff] {
                var damaged = document
                damaged[index] = replacement
                // What is still JSON can be written and read again.
                if let value = JSONValue(parsing: damaged) { #expect(JSONValue(parsing: value.description) == value) }
            }
        }
    }

    @Test func numbersBeyondTheIntegersAreApproximate() {
        #expect(JSONValue(parsing: String(repeating: "9", count: 60)) == .number(1e60))
        #expect(JSONValue.number(.infinity).description == "null")
        #expect(JSONValue(parsing: "18446744073709551616")?.integer(as: UInt64.self) == nil)
        #expect(JSONValue(parsing: "-1")?.integer(as: UInt64.self) == nil)
        #expect(JSONValue(parsing: "1.0")?.integer(as: Int.self) == nil)
    }

    @Test func membersAreFoundByName() {
        let object: JSONValue = ["a": 1, "b": "two", "c": true, "a": 2]
        #expect(object["a"]?.integer(as: Int.self) == 1)
        #expect(object["b"]?.text == "two")
        #expect(object["c"]?.truth == true)
        #expect(object["d"] == nil)
        #expect(object["b"]?["x"] == nil)
        #expect(object["a"]?.text == nil && object["b"]?.truth == nil)
    }
}
