import BlockStorage
import QEDEngine
import QEDFormat
import TestSupport
import Testing

@testable import NBDStorage
@testable import QEDChain

@Suite struct ImageDescriptionTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.path("image.qed")
    }

    /// An image whose backing file is called `name`, whatever that is.
    private func makeOverlay(name: [UInt8], isRaw: Bool = true) throws {
        let header = try QEDHeader(
            newImageOfSizeBytes: 512, geometry: .standard, backingFile: (try BackingFileName(name), isRaw))
        try writeFile(path, header.encoded() + name + [UInt8](repeating: 0, count: 327_680 - 64 - name.count))
    }

    private func backing() throws -> ImageDescription.Backing {
        try #require(try ImageDescription(reading: path).backing)
    }

    @Test func imageMadeByQEMU() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", "cluster_size=4096,table_size=2", path, "1M"])
        try require(["qemu-io", "-f", "qed", "-c", "write 0 8k", path])
        let description = try ImageDescription(reading: path)
        #expect(description.header.geometry.clusterSizeBytes == 4096)
        #expect(description.header.imageSizeBytes == 1 << 20)
        // Header, L1, two data clusters, L2.
        #expect(description.fileSizeBytes == (1 + 2 + 2 + 2) * 4096)
        #expect(description.backing == nil)
    }

    /// As while the image is served; qemu-img refuses then.
    @Test func imageThatIsLocked() throws {
        let header = try ImageCreation(path: path, sizeBytes: 1 << 30).create()
        let server = try ImageFile(path: path, access: .readWrite, caching: .buffered, lock: .writable)
        #expect(try run(["qemu-img", "info", path]).status == 1)
        #expect(try ImageDescription(reading: path).header == header)
        #expect(server.access == .readWrite)
    }

    @Test func backingFileThatIsThere() throws {
        try writeFile(directory.path("base"), [])
        try makeOverlay(name: Array("base".utf8), isRaw: false)
        let backing = try backing()
        #expect(backing.state == .present(path: directory.path("base")))
        #expect(backing.declaredFormat == nil)
    }

    @Test func backingFileThatIsMissing() throws {
        try makeOverlay(name: Array("none/base".utf8))
        #expect(try backing().state == .missing(path: directory.path("none/base")))
        #expect(try backing().declaredFormat == .raw)
    }

    @Test func backingNameThatIsNoFile() throws {
        try makeOverlay(name: Array("ssh://host/export".utf8))
        let name = try BackingFileName(Array("ssh://host/export".utf8))
        #expect(try backing().state == .unusableName(.looksLikeProtocol(name: name)))
        try makeOverlay(name: Array("nbd://host/export".utf8))
        #expect(try backing().state == .elsewhere(NBDAddress("nbd://host/export")))
    }

    @Test func backingNameThatIsNotUTF8() throws {
        try makeOverlay(name: [0x61, 0xff])
        #expect(try backing().state == .unusableName(.notUTF8(name: try BackingFileName([0x61, 0xff]))))
    }

    @Test func backingNameWithANUL() throws {
        try makeOverlay(name: Array("base".utf8))
        var bytes = try readFile(path)
        bytes[66] = 0
        try writeFile(path, bytes)
        #expect(throws: ImageReadError.format(path: path, .backingFileNameContainsNUL(position: 2))) {
            try ImageDescription(reading: path)
        }
    }

    /// The name may be anywhere in the header area, which may be large: only the name itself is read.
    @Test func backingNameFarFromTheStart() throws {
        let name = Array("far".utf8)
        let header = try QEDHeader(
            newImageOfSizeBytes: 512, geometry: .standard, headerSizeClusters: 65535,
            backingFile: (try BackingFileName(name), true))
        var bytes = header.encoded()
        let offset: UInt32 = 65535 * 65536 - 3
        bytes.replaceSubrange(56..<60, with: (0..<4).map { UInt8(truncatingIfNeeded: offset >> (8 * $0)) })
        try writeFile(path, bytes)
        try require(["truncate", "-s", "\(65539 * 65536)", path])
        try require(["sh", "-c", "printf far | dd of=\"$1\" bs=1 seek=\(offset) conv=notrunc status=none", "sh", path])
        #expect(try backing().name.bytes == name)
    }

    @Test func filesThatAreNoImages() throws {
        try writeFile(directory.path("empty"), [])
        try require(["mkfifo", "fifo"], in: directory.path)
        let expectations: [(String, ImageReadError)] = [
            (directory.path("empty"), .format(path: directory.path("empty"), .notQED)),
            (directory.path("none"), .file(.notFound(path: directory.path("none")))),
            (directory.path("fifo"), .file(.notARegularFile(path: directory.path("fifo")))),
            (directory.path, .file(.notARegularFile(path: directory.path))),
        ]
        for (path, error) in expectations {
            #expect(throws: error) { try ImageDescription(reading: path) }
        }
    }
}
