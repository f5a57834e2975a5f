import Foundation
import TestSupport
import Testing

/// A geometry under test.
struct TestGeometry: Sendable, CustomTestStringConvertible {
    var clusterSizeBytes: UInt64
    var tableSizeClusters: UInt64

    var testDescription: String { "\(clusterSizeBytes >> 10)K/\(tableSizeClusters)" }
    var options: String { "cluster_size=\(clusterSizeBytes),table_size=\(tableSizeClusters)" }

    static let all: [TestGeometry] = [
        .init(clusterSizeBytes: 4 << 10, tableSizeClusters: 2), .init(clusterSizeBytes: 4 << 10, tableSizeClusters: 16),
        .init(clusterSizeBytes: 64 << 10, tableSizeClusters: 4),
        .init(clusterSizeBytes: 64 << 10, tableSizeClusters: 2),
        .init(clusterSizeBytes: 1 << 20, tableSizeClusters: 2),
    ]
}

/// What `qemu-img check` says of an image, less the leaks that it miscounts: one per (cluster size - 1) clusters.
struct QEMUVerdict: Equatable {
    var corruptions: UInt64
    var leaks: UInt64
    var allocated: UInt64
    var fragmented: UInt64
    var errors: UInt64

    init(of path: String) throws {
        let result = try run(["qemu-img", "check", "-f", "qed", "--output=json", path])
        guard let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any] else {
            throw CommandFailure(command: "qemu-img check \(path)", result: result)
        }
        func count(_ key: String) -> UInt64 { object[key] as? UInt64 ?? 0 }
        let editor = try ImageEditor(path)
        let clusters = try editor.fileSizeBytes / editor.clusterSizeBytes
        corruptions = count("corruptions")
        leaks = count("leaks") - clusters / (editor.clusterSizeBytes - 1)
        allocated = count("allocated-clusters")
        fragmented = count("fragmented-clusters")
        errors = count("check-errors")
    }

    init(corruptions: UInt64, leaks: UInt64, allocated: UInt64, fragmented: UInt64, errors: UInt64) {
        self.corruptions = corruptions
        self.leaks = leaks
        self.allocated = allocated
        self.fragmented = fragmented
        self.errors = errors
    }
}

/// Runs qemu-io on a file.
func qemuIO(_ path: String, format: String = "qed", _ commands: String...) throws {
    try require(["qemu-io", "-f", format, path] + commands.flatMap { ["-c", $0] })
}

/// The bytes of the disk that an image holds, as QEMU reads them.
func guestContent(_ path: String, format: String = "qed") throws -> Data {
    let scratch = try TemporaryDirectory()
    let raw = scratch.path("content")
    try require(["qemu-img", "convert", "-f", format, "-O", "raw", path, raw])
    return try Data(contentsOf: URL(fileURLWithPath: raw))
}

/// The same of a large disk with little in it: its pieces that are not all zeros, by their offset.
struct SparseContent: Equatable {
    private var pieces: [UInt64: Data] = [:]
    private var sizeBytes: UInt64 = 0
    private static let pieceBytes = 65536
    /// `SEEK_DATA`, which is not imported.
    private static let toData: Int32 = 3

    init(of path: String) throws {
        let scratch = try TemporaryDirectory()
        let raw = scratch.path("content")
        try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", path, raw])
        let descriptor = open(raw, O_RDONLY)
        guard descriptor >= 0 else { throw POSIXError(.EIO) }
        defer { close(descriptor) }
        sizeBytes = UInt64(lseek(descriptor, 0, SEEK_END))
        var position = lseek(descriptor, 0, Self.toData)
        var piece = Data(count: Self.pieceBytes)
        while position >= 0 {
            let start = position / off_t(Self.pieceBytes) * off_t(Self.pieceBytes)
            let count = piece.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, start) }
            guard count > 0 else { throw POSIXError(.EIO) }
            if piece.prefix(count).contains(where: { $0 != 0 }) { pieces[UInt64(start)] = piece.prefix(count) }
            position = lseek(descriptor, start + off_t(count), Self.toData)
        }
    }
}
