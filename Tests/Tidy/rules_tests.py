"""Each rule finds what breaks it, and says where; and lets pass what only looks like it."""

import unittest

import calls
import declarations
import exit_statuses
import layers
import lines
import words
from swift_source import code_of


class RuleTests(unittest.TestCase):
    def assert_found(self, rule, files, *places):
        """`places` are the lines at which it is broken, and a part of what is said there."""
        found = sorted(rule.check(files))
        self.assertEqual([finding.line for finding in found], [line for line, _ in places], [str(f) for f in found])
        for finding, (_, part) in zip(found, places):
            self.assertIn(part, finding.sentence)

    def test_code_is_what_is_neither_comment_nor_text(self):
        for text, code in [
            ('a // b', 'a     '),
            ('a /* b /* c */ d */ e', 'a                   e'),
            ('"a!" + b', '"  " + b'),
            (r'"a \(b("c!")) d" + e', '"   (b("  "))  " + e'),
            (r'"\"a" + b', '"   " + b'),
            ('#"a \\(b) \\#(c) "d"# + e', '#"         (c)   "# + e'),
            ('"""\n  a "b" \\(c)\n  """ + d', '"""\n         (c)\n  """ + d'),
            ('"http://a" + b', '"        " + b'),
        ]:
            self.assertEqual(code_of(text), code)

    def test_layers(self):
        def file(module, *imports):
            return {f"Sources/{module}/A.swift": "".join(f"{line}\n" for line in imports)}
        self.assert_found(layers, file("QEDEngine", "import BlockStorage", "import Glibc"))
        self.assert_found(layers, file("QEDEngine", "import Glibc", "import DeviceServer"), (2, "may not import DeviceServer"))
        self.assert_found(layers, file("Ublk", "@testable import QEDEngine"), (1, "may not import QEDEngine"))
        self.assert_found(layers, file("Ublk", "import struct QEDFormat.QEDHeader"), (1, "may not import QEDFormat"))
        self.assert_found(layers, file("QEDFormat", "import Glibc"), (1, "QEDFormat may not import Glibc"))
        self.assert_found(layers, file("DeviceServer", "import Foundation"), (1, "may not import Foundation"))
        self.assert_found(layers, file("QEDEngine", "// import DeviceServer"))
        self.assert_found(layers, file("Elsewhere", "import Glibc"), (1, "Elsewhere is in no layer"))

    def test_the_layers_have_no_cycle(self):
        found = list(layers._table_is_layered({"A": "B", "B": "A"}))
        self.assertEqual([finding.sentence for finding in found], ["A imports B, which is in no layer above it"])

    def test_what_is_imported_is_declared(self):
        package = """
            .target(
                name: "Ublk",
                dependencies: ["IOURing", "CSupport", .product(name: "SystemPackage", package: "swift-system")],
                swiftSettings: swiftSettings),
            """
        files = {"Package.swift": package, "Sources/Ublk/A.swift": "import IOURing\nimport CSupport\n"}
        self.assert_found(layers, files, (2, "declares SystemPackage and never imports it"))
        files["Sources/Ublk/B.swift"] = "import SystemPackage\nimport Glibc\n"
        self.assert_found(layers, files)
        files["Package.swift"] = package.replace('"CSupport", ', "")
        self.assert_found(layers, files, (2, "imports CSupport, which is not declared"))

    def test_calls(self):
        def found(code, *places, path="Sources/QEDEngine/A.swift"):
            self.assert_found(calls, {path: code}, *places)
        found("let a = try! b()", (1, "`try!`"))
        found("let a = b as! C", (1, "`as!`"))
        for code in ("a!.b", "a[1]!", "a()!", "let a: B!", "let a: [B]?!"):
            found(code, (1, "`!`"))
        for code in ("a != b", "!a", "a && !b", "(!a)", "a!=b", "// a!", '"a!"', "try? a()", "#if !DEBUG"):
            found(code)
        found("\nfatalError()", (2, "precondition"))
        found("assert(a)", (1, "precondition"))
        found("print(a)", (1, "printOutput"))
        found("print(a)", path="Sources/qed-ublk-sim/A.swift")
        found("a.print(b)")
        found("exit(1)", (1, "ends itself"))
        found('getenv("A")', (1, "environment"))
        found("unsafeBitCast(a, to: B.self)", (1, "another way"))
        found("a!", path="Tests/QEDEngineTests/A.swift")
        found('flags: ["-Ounchecked"]', (1, "-Ounchecked"), path="Package.swift")

    def test_lines(self):
        self.assert_found(lines, {"A.swift": "a" * 130 + "\n" + "ä" * 130 + "\n"})
        self.assert_found(lines, {"A.swift": "// " + "a" * 128 + "\n"}, (1, "131 characters"))
        self.assert_found(lines, {"scripts/a": "#!/bin/sh\n" + "a" * 131 + "\n"}, (2, "131 characters"))
        self.assert_found(lines, {"docs/a.md": "a" * 131 + "\n"})
        self.assert_found(lines, {"A.c": "a \nb\tc\nd"}, (1, "white space"), (2, "tabulator"), (3, "no end"))
        self.assert_found(lines, {"A.swift": "a\n" * 400})
        self.assert_found(lines, {"A.swift": "a\n" * 401}, (401, "401 lines"))

    def test_exit_statuses(self):
        def found(text, *places):
            self.assert_found(exit_statuses, {"Sources/qed-ublk/A.swift": text}, *places)
        for table in ("ExitStatus.table", 'ExitStatus.tableOfTool([.usage: "wrong"])', "statuses", "CheckStatus.table"):
            found(f"Exit status:\n            \\({table})\n")
        found('discussion: "Exit status:\\n\\(ExitStatus.table)"')
        found("\nExit status:\n   0  done\n", (2, "by hand"))
        found("throw ExitCode(3)", (1, "as a number"))
        found("throw ExitCode(ExitStatus.busy.rawValue)")

    def test_declarations(self):
        def found(code, *places, other=""):
            self.assert_found(declarations, {"Sources/A/A.swift": code, "Tests/ATests/A.swift": other}, *places)
        found("func a() {}", (1, "nothing mentions a"))
        found("func a() {}\nlet _ = a()")
        found("func a() {}", other="a()")
        found("func a() {} // a", (1, "nothing mentions a"))
        found('func a() {}\n_ = "\\(a())"')
        found("protocol A { func a() }\nstruct B: A { func a() {} }\n_ = B()", (1, "mentions a"), (2, "mentions a"))
        found("enum A {\ncase a\ncase b, c(x: Int, Int)\n}\nlet _ = A.a", (3, "mentions b"), (3, "mentions c"))
        found("enum A {\ncase a(Int)\n}\nlet _ = A.self", (2, "mentions a"))
        found("switch b {\ncase a, c: d\n}")
        found("struct A { var description: String }\nlet _ = A.self")
        found("@main\nstruct A {}")

    def test_declarations_of_c(self):
        def found(header, body, *places, swift=""):
            self.assert_found(
                declarations, {"CSupport/include/a.h": header, "CSupport/a.c": body, "Sources/A/A.swift": swift}, *places)
        found("int cs_a(int b);\n", "int cs_a(int b) { return b; }\n", (1, "nothing mentions cs_a"))
        found("int cs_a(int b);\n", "int cs_a(int b) { return b; }\n", swift="_ = cs_a(1)")
        found("int cs_a(int b);\n", "int cs_a(int b) { return b; }\nint c(void) {\n    return cs_a(1);\n}\n")
        found("CS_INLINE int cs_a(int b) { return b; }\n", "", (1, "nothing mentions cs_a"))

    def test_words(self):
        def found(text, *places, path="docs/a.md"):
            self.assert_found(words, {path: text, "docs/b.md": "", "Sources/A/A.swift": ""}, *places)
        # In two pieces: a reader of this file has no such list either.
        found("see issue" + " 3", (1, "number of a list"))
        found("a task, 3 of them; 2 issues")
        found("a\n// TODO: more\n", (2, "left to be done"), path="Sources/B.swift")
        found("https://swift.org/install and https://example.org/", (1, "example.org"))
        found("`/data/a` and /elsewhere/b", (1, "/elsewhere"))
        found('let a = "/elsewhere/b"', path="Tests/A.swift")
        found("[a](b.md), [b](b.md#part), [c](../docs), [d](https://swift.org/install)")
        found("[a](c.md)", (1, "c.md is not in the repository"))
        found("`Sources/A/A.swift`, `Sources/A`, `Sources/A/B.swift`", (1, "Sources/A/B.swift is not"))


if __name__ == "__main__":
    unittest.main()
