import Foundation
import QEDChain
import TestSupport
import Testing

@testable import QEDEngine

/// What is allocated can be changed without any space: on a full disk too.
@Suite struct AllocatedSpaceTests {
    @Test("overwriting, zeroing and discarding extend nothing", arguments: [false, true])
    func changesInPlace(hasBackingFile: Bool) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        if hasBackingFile {
            try writeFile(scratch.path("base"), [UInt8](repeating: 7, count: 1 << 20))
            try require(["qemu-img", "create", "-q", "-f", "qed", "-b", scratch.path("base"), "-F", "raw", image, "64M"])
        } else {
            try require(["qemu-img", "create", "-q", "-f", "qed", image, "64M"])
        }
        try require(["qemu-io", "-f", "qed", image, "-c", "write -P 1 0 1M"])
        let engine = try LocalEngine(path: image)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        buffer.initializeMemory(as: UInt8.self, repeating: 9, count: 4096)
        defer { buffer.deallocate() }
        // The first request finds no page of a table in memory.
        for request in [
            BlockRequest(.write, deviceOffset: 4096, byteCount: 4096, buffer: buffer),
            BlockRequest(.writeZeroes, deviceOffset: 65536, byteCount: 65536),
            BlockRequest(.discard, deviceOffset: 131072, byteCount: 65536),
            BlockRequest(.discard, deviceOffset: 32 << 20, byteCount: 1 << 20),
            BlockRequest(.flush),
        ] {
            #expect(engine.perform([request]) == [0])
        }
        #expect(engine.queue.statistics.extensions == 0)
        #expect(engine.queue.statistics.headerWrites == 0)
        try engine.close()
    }
}
