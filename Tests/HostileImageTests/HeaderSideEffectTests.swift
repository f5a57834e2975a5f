import Foundation
import TestSupport
import Testing

@testable import DeviceServer

/// Rows of the header whose point is what else happens, or does not.
@Suite struct HeaderSideEffectTests {
    let directory: TemporaryDirectory
    var path: String { directory.path("image.qed") }

    init() throws { directory = try TemporaryDirectory() }

    private func ours(_ arguments: String...) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    @Test("row 6: what QEMU cannot open is said, and not made unasked")
    func tablesOfOneCluster() throws {
        try ImageBuilder.empty(clusterSize: 65536, tableSize: 1).write(to: path)
        #expect(
            try ours("info", "image.qed").output.contains("note: QEMU cannot open images with tables of one cluster"))
        expectRefusal(try ours("create", "--table-size", "1", "new.qed", "1G"), 64, "QEMU cannot open")
        #expect(try directory.contents().keys.sorted() == ["image.qed"])
    }

    /// The device's server refuses it before it makes anything.
    @Test("row 24: an image of 0 bytes becomes no device")
    func emptyImage() throws {
        try ImageBuilder.empty(clusterSize: 65536, tableSize: 4, imageSize: 0).write(to: path)
        let before = try readFile(path)
        for isReadOnly in [false, true] {
            do {
                var configuration = ServerConfiguration(imagePath: path)
                configuration.isReadOnly = isReadOnly
                _ = try ImageSession(configuration)
                Issue.record("it was opened")
            } catch {
                guard case .emptyImage = error else { throw error }
            }
        }
        #expect(try readFile(path) == before)
    }

    @Test("row 26: compat bits stay, and no new name is written over what they stand for")
    func compatBits() throws {
        var image = ImageBuilder.specimen()
        image.header.compatFeatures = 1 << 40 | 1
        try image.write(to: path)
        expectSuccess(try ours("io", "image.qed", "write 0 4k", "write 2G 4k"))
        expectSuccess(try ours("resize", "image.qed", "+1G"))
        #expect(try ImageEditor(path).word(at: 24) == 1 << 40 | 1)
        let before = try readFile(path)
        expectRefusal(
            try ours("rebase", "-u", "-b", "base", "-F", "raw", "image.qed"), 64,
            "has data of another program in its header")
        #expect(try readFile(path) == before)
    }

    @Test(
        "row 27: autoclear bits stay while the image is read",
        arguments: [
            ["info", "image.qed"], ["io", "image.qed", "read 0 1M"], ["check", "image.qed"], ["map", "image.qed"],
            ["convert", "image.qed", "copy.raw"], ["bench", "-c", "1", "image.qed"],
        ])
    func autoclearBitsStay(arguments: [String]) throws {
        var image = ImageBuilder.specimen()
        image.header.autoclearFeatures = 1 << 63 | 5
        try image.write(to: path)
        let before = try readFile(path)
        #expect(try QedUblkProgram.runBounded(arguments, in: directory).status == 0)
        #expect(try readFile(path) == before)
    }

    @Test(
        "row 27: autoclear bits go before the image is written",
        arguments: [
            ["io", "image.qed", "flush"], ["io", "image.qed", "write 0 4k"], ["resize", "image.qed", "+1G"],
            ["compact", "image.qed"], ["rebase", "-u", "-b", "x", "-F", "raw", "image.qed"],
            ["bench", "-w", "-c", "1", "image.qed"],
        ])
    func autoclearBitsGo(arguments: [String]) throws {
        var image = ImageBuilder.specimen()
        image.header.autoclearFeatures = 1 << 63 | 5
        try image.write(to: path)
        #expect(try QedUblkProgram.runBounded(arguments, in: directory).status == 0)
        #expect(try ImageEditor(path).word(at: 32) == 0)
    }

    @Test(
        "row 29: what else is in the header area stays",
        arguments: [
            ["io", "image.qed", "write 0 4k", "write 2G 4k", "flush"], ["resize", "image.qed", "+1G"],
            ["check", "-r", "all", "image.qed"], ["compact", "image.qed"],
            ["rebase", "-u", "-b", "base", "-F", "raw", "image.qed"],
        ])
    func foreignBytesStay(arguments: [String]) throws {
        var image = ImageBuilder.specimen()
        // NEED_CHECK, so that the header is written at least twice.
        image.header.features = 2
        let foreign = Array(repeating: UInt8(0xee), count: 448)
        image.put(foreign, at: 64)
        image.put(foreign, at: 60_000)
        try image.write(to: path)
        #expect(try QedUblkProgram.runBounded(arguments, in: directory).status == 0)
        let bytes = try readFile(path)
        #expect(bytes[64..<512].elementsEqual(foreign))
        #expect(bytes[60_000..<60_448].elementsEqual(foreign))
    }
}
