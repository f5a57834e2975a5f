import Testing

@testable import BlockStorage

/// What the machine's file of allowed bases says.
@Suite struct AllowedBasesTests {
    private func patterns(_ text: String) -> [String] { AllowedBases.patterns(Array(text.utf8)) }

    @Test("a pattern in each line, without what is around it; comments and empty lines say nothing")
    func lines() {
        #expect(
            patterns("# ours\n\n  nbd://a/*\t\r\n\tnbd+unix:///?socket=/run/x\n # not this\n   \nnbds://b/ ") == [
                "nbd://a/*", "nbd+unix:///?socket=/run/x", "nbds://b/",
            ])
        #expect(patterns("").isEmpty)
        #expect(patterns("\n\r\n").isEmpty)
    }

    @Test("a pattern that the end of what is read cuts short allows nothing")
    func cut() {
        let line = "nbd://a/\n"
        let full = String(repeating: line, count: AllowedBases.largestBytes / line.utf8.count)
        let rest = AllowedBases.largestBytes - full.utf8.count
        let cut = full + "nbd://*.example/*".prefix(rest)
        #expect(cut.utf8.count == AllowedBases.largestBytes && rest > 0)
        #expect(Set(patterns(cut)) == ["nbd://a/"])
        #expect(patterns(String(repeating: "*", count: AllowedBases.largestBytes)).isEmpty)
    }
}
