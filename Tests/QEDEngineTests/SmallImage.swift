import QEDChain
import TestSupport

@testable import QEDEngine

/// Serves a new image of 8 MiB, and closes it; the buffer has 4 KiB of 7s.
/// - Parameter baseBytes: the size of the raw base that lies beneath it, all of 7s as well; nil for none.
func withSmallImage(
    baseBytes: Int? = nil, _ body: (LocalEngine, _ buffer: UnsafeMutableRawPointer) throws -> Void
) throws {
    let scratch = try TemporaryDirectory()
    let image = scratch.path("image.qed")
    var options: [String] = []
    if let baseBytes {
        try writeFile(scratch.path("base"), [UInt8](repeating: 7, count: baseBytes))
        options = ["-b", scratch.path("base"), "-F", "raw"]
    }
    try require(["qemu-img", "create", "-q", "-f", "qed"] + options + [image, "8M"])
    let engine = try LocalEngine(path: image)
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 7, count: 4096)
    try body(engine, buffer)
    try engine.close()
}
