import Foundation

/// What `qemu-img check` says of an image, less the leaks that it miscounts: one per (cluster size - 1) clusters.
public struct QEMUVerdict: Equatable, Sendable {
    public var corruptions: UInt64
    public var leaks: UInt64
    public var allocated: UInt64
    public var fragmented: UInt64
    public var errors: UInt64

    public init(of path: String) throws {
        let result = try run(["qemu-img", "check", "-f", "qed", "--output=json", path])
        guard let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any] else {
            throw CommandFailure(command: "qemu-img check \(path)", result: result)
        }
        func count(_ key: String) -> UInt64 { object[key] as? UInt64 ?? 0 }
        let editor = try ImageEditor(path)
        let clusters = try (editor.fileSizeBytes + 511) / 512 * 512 / editor.clusterSizeBytes
        corruptions = count("corruptions")
        leaks = count("leaks") - clusters / (editor.clusterSizeBytes - 1)
        allocated = count("allocated-clusters")
        fragmented = count("fragmented-clusters")
        errors = count("check-errors")
    }

    public init(corruptions: UInt64, leaks: UInt64, allocated: UInt64, fragmented: UInt64, errors: UInt64) {
        self.corruptions = corruptions
        self.leaks = leaks
        self.allocated = allocated
        self.fragmented = fragmented
        self.errors = errors
    }
}
