import Testing

@testable import DeviceServer

@Suite struct DeviceNameTests {
    @Test(arguments: ["a", "0", "root", "a.b", "a-b_c:d@e+f", "x\\x2dy", String(repeating: "n", count: 238)])
    func namesForLinks(text: String) throws {
        #expect(DeviceName(text)?.text == text)
        #expect(DeviceName(text)?.link == "/dev/qed/\(text)")
    }

    @Test(arguments: [
        "", ".", "..", ".a", "a/b", "a b", "a\n", "\0", "a\\", "a\\x", "a\\x2", "a\\x2g", "a\\y2d", "ä", "$(x)", "*", "a,b",
        String(repeating: "n", count: 239),
    ])
    func nothingElseIsOne(text: String) { #expect(DeviceName(text) == nil) }

    /// As `systemd-escape --path` has them.
    @Test(arguments: [
        ("/srv/disk.qed", "srv-disk.qed"), ("/srv//a/../disk.qed", "srv-disk.qed"), ("/a-b/c", "a\\x2db-c"),
        ("/.hidden/.qed", "\\x2ehidden-.qed"), ("/with space/ä", "with\\x20space-\\xc3\\xa4"), ("/x_y:z+@", "x_y:z\\x2b\\x40"),
    ])
    func anImageHasItsPathsName(path: String, name: String) { #expect(DeviceName(ofImageAt: path)?.text == name) }

    @Test func aLongPathHasNone() {
        #expect(DeviceName(ofImageAt: "/" + String(repeating: "n", count: 238)) != nil)
        #expect(DeviceName(ofImageAt: "/" + String(repeating: "n", count: 239)) == nil)
        #expect(DeviceName(ofImageAt: "/") == nil)
    }
}
