import BlockStorage
import QEDFormat
import SystemPackage
import TestSupport
import Testing

@testable import QEDChain
@testable import QEDEngine

private let kibi: UInt64 = 1 << 10
private let mebi: UInt64 = 1 << 20
private let gibi: UInt64 = 1 << 30

@Suite struct ImageCreationTests {
    static let geometries: [QEDGeometry] = [4 * kibi, 64 * kibi, mebi, 2 * mebi].flatMap { cluster in
        [2, 4, 16].compactMap { (table: UInt64) in
            let geometry = try? QEDGeometry(clusterSizeBytes: cluster, tableSizeClusters: table)
            return geometry?.qemuLimitation?.preventsOpening == true ? nil : geometry
        }
    }

    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
    }

    @Test func geometriesUnderTestAreAllThatQEMUOpens() {
        #expect(Self.geometries.count == 11)
    }

    @Test("QEMU agrees with what is created", arguments: geometries)
    func agreesWithQEMU(geometry: QEDGeometry) throws {
        for sizeBytes in [0, 512, gibi, geometry.maximumImageSizeBytes] {
            let path = directory.path("\(sizeBytes).qed")
            let header = try ImageCreation(path: path, sizeBytes: sizeBytes, geometry: geometry).create()
            #expect(header.imageSizeBytes == sizeBytes)

            let info = try requireJSON(["qemu-img", "info", "--output=json", path])
            #expect(info["format"] as? String == "qed")
            #expect(info["virtual-size"] as? UInt64 == sizeBytes)
            #expect(info["cluster-size"] as? UInt64 == geometry.clusterSizeBytes)
            try require(["qemu-img", "check", "-f", "qed", path])

            let description = try ImageDescription(reading: path)
            #expect(description.header == header)
            #expect(description.fileSizeBytes == (1 + geometry.tableSizeClusters) * geometry.clusterSizeBytes)
            #expect(description.allocatedBytes <= geometry.clusterSizeBytes)
        }
    }

    /// The same file as QEMU makes, byte for byte.
    @Test("QEMU creates the same", arguments: geometries)
    func sameAsQEMU(geometry: QEDGeometry) throws {
        _ = try ImageCreation(path: directory.path("ours.qed"), sizeBytes: gibi, geometry: geometry).create()
        let options = "cluster_size=\(geometry.clusterSizeBytes),table_size=\(geometry.tableSizeClusters)"
        try require(
            ["qemu-img", "create", "-q", "-f", "qed", "-o", options, "theirs.qed", "1G"], in: directory.path)
        #expect(try readFile(directory.path("ours.qed")) == readFile(directory.path("theirs.qed")))
    }

    @Test("sizes are rounded up", arguments: [(1, 512), (511, 512), (512, 512), (1000, 1024)] as [(UInt64, UInt64)])
    func rounding(sizeBytes: UInt64, rounded: UInt64) throws {
        let header = try ImageCreation(path: directory.path("image.qed"), sizeBytes: sizeBytes).create()
        #expect(header.imageSizeBytes == rounded)
        let info = try requireJSON(["qemu-img", "info", "--output=json", "image.qed"], in: directory.path)
        #expect(info["virtual-size"] as? UInt64 == rounded)
    }

    @Test func geometryThatQEMUCannotOpenCanBeForced() throws {
        let geometry = try QEDGeometry(clusterSizeBytes: 64 * kibi, tableSizeClusters: 1)
        let path = directory.path("image.qed")
        let header = try ImageCreation(
            path: path, sizeBytes: gibi, geometry: geometry, allowsWhatQEMUCannotOpen: true
        ).create()
        #expect(try ImageDescription(reading: path).header == header)
        // If QEMU ever learns to open it, the limitation is to be dropped.
        #expect(try run(["qemu-img", "info", path]).status == 1)
    }
}

// MARK: - Overlays

@Suite struct OverlayCreationTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try writeFile(directory.path("base.raw"), [UInt8](repeating: 0x42, count: 100_000))
        try require(["qemu-img", "create", "-q", "-f", "qed", "base.qed", "3G"], in: directory.path)
    }

    @Test("QEMU creates the same overlay", arguments: BackingFormat.allCases)
    func sameAsQEMU(format: BackingFormat) throws {
        let base = "base.\(format)"
        let header = try ImageCreation(
            path: directory.path("ours.qed"), backing: .init(name: base, format: format)
        ).create()
        #expect(header.imageSizeBytes == (format == .raw ? 100_352 : 3 * gibi))
        try require(
            ["qemu-img", "create", "-q", "-f", "qed", "-b", base, "-F", "\(format)", "theirs.qed"], in: directory.path)
        #expect(try readFile(directory.path("ours.qed")) == readFile(directory.path("theirs.qed")))

        let info = try requireJSON(["qemu-img", "info", "--output=json", "ours.qed"], in: directory.path)
        #expect(info["backing-filename"] as? String == base)
        #expect(info["backing-filename-format"] as? String == (format == .raw ? "raw" : nil))
        try require(["qemu-img", "check", "ours.qed"], in: directory.path)
    }

    @Test func overlayReadsAsItsBase() throws {
        _ = try ImageCreation(
            path: directory.path("overlay.qed"), sizeBytes: 1 << 20, backing: .init(name: "base.raw", format: .raw)
        ).create()
        try require(["qemu-img", "convert", "-O", "raw", "overlay.qed", "out.raw"], in: directory.path)
        let expected = try readFile(directory.path("base.raw")) + [UInt8](repeating: 0, count: (1 << 20) - 100_000)
        #expect(try readFile(directory.path("out.raw")) == expected)
    }

    @Test func givenSizeWinsOverTheBase() throws {
        let header = try ImageCreation(
            path: directory.path("overlay.qed"), sizeBytes: gibi, backing: .init(name: "base.qed", format: .qed)
        ).create()
        #expect(header.imageSizeBytes == gibi)
    }

    @Test func relativeNamesStartAtTheOverlay() throws {
        try directory.makeDirectory("sub")
        let path = directory.path("sub/overlay.qed")
        #expect(throws: ImageCreationError.backingFile(.file(.notFound(path: directory.path("sub/base.raw"))))) {
            try ImageCreation(path: path, backing: .init(name: "base.raw", format: .raw)).create()
        }
        _ = try ImageCreation(path: path, backing: .init(name: "../base.raw", format: .raw)).create()
        try require(["qemu-img", "check", path])
        #expect(try ImageDescription(reading: path).backing?.name.text == "../base.raw")
    }

    /// QEMU would take `a:b.raw` for the protocol `a`.
    @Test func namesWithAColonAreStoredAsPaths() throws {
        try writeFile(directory.path("a:b.raw"), [1])
        let path = directory.path("overlay.qed")
        _ = try ImageCreation(path: path, backing: .init(name: "a:b.raw", format: .raw)).create()
        #expect(try ImageDescription(reading: path).backing?.name.text == "./a:b.raw")
        try require(["qemu-img", "check", path])
    }

    @Test func longestNameThatFits() throws {
        let geometry = try QEDGeometry(clusterSizeBytes: 4 * kibi, tableSizeClusters: 2)
        let path = directory.path("overlay.qed")
        // 4032 bytes, of which the directory's path does not count.
        let name = String(repeating: "./", count: (4032 - 8) / 2) + "base.raw"
        let relative = ImageCreation(path: path, geometry: geometry, backing: .init(name: name, format: .raw))
        _ = try relative.create()
        #expect(try ImageDescription(reading: path).backing?.name.bytes.count == 4032)
        #expect(try readFile(path).count == 3 * 4096)
    }
}
