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

/// The same of a large disk with little in it.
struct SparseContent: Equatable {
    private let content: FileContent

    init(of path: String) throws {
        let scratch = try TemporaryDirectory()
        let raw = scratch.path("content")
        try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", path, raw])
        content = try FileContent(of: raw)
    }
}
