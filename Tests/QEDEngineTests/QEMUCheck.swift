import Foundation
import TestSupport
import Testing

/// `qemu-img check` finds nothing wrong. It counts one leak too many for each (cluster size - 1) clusters of the file.
func expectCheckClean(_ image: String, clusterSizeBytes: UInt64, sourceLocation: SourceLocation = #_sourceLocation) throws {
    let size = try #require(try FileManager.default.attributesOfItem(atPath: image)[.size] as? UInt64)
    let falseLeaks = size / clusterSizeBytes / (clusterSizeBytes - 1)
    let result = try run(["qemu-img", "check", "-f", "qed", image])
    if falseLeaks == 0 {
        #expect(result.status == 0, "\(result.output)\(result.errors)", sourceLocation: sourceLocation)
    } else {
        #expect(result.status == 3, "\(result.output)\(result.errors)", sourceLocation: sourceLocation)
        #expect(
            result.output.contains("\(falseLeaks) leaked clusters"), "\(result.output)\(result.errors)",
            sourceLocation: sourceLocation)
    }
}
