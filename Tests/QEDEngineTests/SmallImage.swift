import QEDChain
import TestSupport

@testable import QEDEngine

/// Serves a new image of 8 MiB without a backing file, and closes it; the buffer has 4 KiB of 7s.
func withSmallImage(_ body: (LocalEngine, _ buffer: UnsafeMutableRawPointer) throws -> Void) throws {
    let scratch = try TemporaryDirectory()
    let image = scratch.path("image.qed")
    try require(["qemu-img", "create", "-q", "-f", "qed", image, "8M"])
    let engine = try LocalEngine(path: image)
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 7, count: 4096)
    try body(engine, buffer)
    try engine.close()
}
