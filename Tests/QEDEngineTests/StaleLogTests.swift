import BlockStorage
import Foundation
import Platform
import QEDChain
import QEDFormat
import TestSupport
import Testing

@testable import QEDEngine

@Suite struct StaleLogTests {
    private var boot = BootIdentity(high: 3, low: 4)

    private func session(_ memory: UnsafeMutableRawPointer, _ sizeBytes: Int) -> SessionMemory {
        SessionMemory(
            address: memory, sizeBytes: sizeBytes,
            owner: MappingLog.Owner(
                image: FileIdentity(high: 1, low: 2), boot: boot),
            newSession: .random(in: 1 ... .max))
    }

    /// A log is of use only as long as nobody else has changed the image.
    @Test("another program that was killed too", arguments: ["tool", "qemu"])
    func anotherProgramsVisit(_ who: String) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        let base = scratch.path("base")
        try writeFile(base, [UInt8](repeating: 7, count: 64 << 20))
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", base, "-F", "raw", image, "64M"])
        try require(["qemu-io", "-f", "qed", image, "-c", "write -P 1 60M 64k"])
        let size = MappingLog.sizeBytes(capacity: 4096)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        defer { memory.deallocate() }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 64 << 10, alignment: 4096)
        defer { buffer.deallocate() }
        func write(_ engine: LocalEngine, _ offset: UInt64, _ value: UInt8) {
            buffer.initializeMemory(as: UInt8.self, repeating: value, count: 64 << 10)
            let request = BlockRequest(.write, deviceOffset: offset, byteCount: 64 << 10, buffer: buffer)
            #expect(engine.perform([request]) == [0])
        }
        // 1: a server writes cluster 0 with 9s and dies.
        let engine = try LocalEngine(path: image, options: ImageOptions(session: session(memory, size)))
        write(engine, 0, 9)
        engine.abandon()
        // 2: another program opens it, writes cluster 1M with 5s, and dies too.
        if who == "tool" {
            let tool = try LocalEngine(path: image)
            write(tool, 1 << 20, 5)
            tool.abandon()
        } else {
            _ = try run(["qemu-io", "-f", "qed", image, "-c", "write -P 5 2G 64k", "-c", "write -P 5 1M 64k"])
            var bytes = try Data(contentsOf: URL(fileURLWithPath: image))
            bytes[16] |= 2
            try bytes.write(to: URL(fileURLWithPath: image))
        }
        // 3: a server again, with the old log.
        let next = try LocalEngine(path: image, options: ImageOptions(session: session(memory, size)))
        #expect(next.image.replayedChanges == 0)
        #expect(next.image.replayRefusal == "another program has opened the image since")
        #expect(next.perform([BlockRequest(.read, byteCount: 64 << 10, buffer: buffer)]) == [0])
        let values = Set(UnsafeRawBufferPointer(start: buffer, count: 64 << 10))
        #expect(values == [7] || values == [9], "neither the backing file's data nor what was acknowledged: \(values)")
        try next.close()
    }
}
