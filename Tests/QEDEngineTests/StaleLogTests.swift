import BlockStorage
import Foundation
import IOURing
import Platform
import QEDChain
import QEDFormat
import SystemPackage
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

    /// Of the L1 table, and of an L2 page: a replay judges them first, and reads them again to change them.
    @Test("a disk that answers another time with something else", arguments: [0x10000, 0x50000] as [UInt64])
    func aSecondAnswer(_ page: UInt64) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "8M"])
        let size = MappingLog.sizeBytes(capacity: 4096)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 64 << 10, alignment: 4096)
        defer {
            memory.deallocate()
            buffer.deallocate()
        }
        buffer.initializeMemory(as: UInt8.self, repeating: 9, count: 64 << 10)
        let engine = try LocalEngine(path: image, options: ImageOptions(session: session(memory, size)))
        #expect(engine.perform([BlockRequest(.write, byteCount: 64 << 10, buffer: buffer)]) == [0])
        engine.abandon()

        let chain = try ImageChain.open(path: image, isReadOnly: false)
        let loop = try RingLoop(entries: 32, completionEntries: 64)
        defer { loop.close() }
        let file = SecondAnswer(file: chain.storages(on: loop.ring).top, page: page, instead: 0x90000)
        let layers = chain.map(\.layer)
        let options = ImageOptions(session: session(memory, size))
        #expect(throws: ImageOpenError.storage(StorageError(.read, fileOffset: page, byteCount: 4096, errno: .ioError))) {
            _ = try loop.run { () throws(ImageOpenError) in
                try await Image.open(chain: layers, storages: ChainStorage(top: file), options: options)
            }
        }
        #expect(file.reads.count == 2)
        // Its files are open until here.
        withExtendedLifetime(chain) {}
    }
}

/// A file whose page is another one when it is read for the second time.
private struct SecondAnswer: Storage {
    final class Reads: @unchecked Sendable {
        var count = 0
    }

    let file: FileStorage
    let page: UInt64
    let instead: UInt64
    let reads = Reads()

    var alignment: StorageAlignment { file.alignment }
    var tellsHolesTruly: Bool { file.tellsHolesTruly }
    var nanoseconds: UInt64 { file.nanoseconds }

    func submit(_ operation: StorageOperation, token: CompletionToken) {
        guard case .read(let buffer, 4096, page) = operation else { return file.submit(operation, token: token) }
        reads.count += 1
        file.submit(.read(buffer, byteCount: 4096, fileOffset: reads.count == 2 ? instead : page), token: token)
    }

    func setLength(_ sizeBytes: UInt64) async throws(StorageError) { try await file.setLength(sizeBytes) }
    func nextData(from fileOffset: UInt64) -> Range<UInt64>? { file.nextData(from: fileOffset) }
    func length() async throws(StorageError) -> UInt64 { try await file.length() }
    func pause(nanoseconds: UInt64) async { await file.pause(nanoseconds: nanoseconds) }
}
