import BlockStorage
import QEDEngine
import Testing

@testable import Simulation

/// What is done for many requests together does not wait for the disk once for each.
@Suite struct ManyAtOnceTests {
    private static let blockBytes = 512

    /// Starts writes of a block each, one after the other on the queues in turn, and runs until all are done.
    /// - Returns: the most operations of each kind that were under way at once, as `counts` tells them apart.
    private func most(
        _ machine: Machine, writesAt offsets: [UInt64], byteCount: Int = ManyAtOnceTests.blockBytes,
        _ counts: (SimulatedIO.Operation) -> Bool
    ) throws -> Int {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 512)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 7, count: byteCount)
        for (number, offset) in offsets.enumerated() {
            let write = BlockRequest(.write, deviceOffset: offset, byteCount: UInt64(byteCount), buffer: buffer)
            machine.start(queue: number % machine.queueCount, slot: number / machine.queueCount, write)
        }
        var most = 0
        try machine.settle { _ in most = max(most, machine.io.inFlight.count(where: counts)) }
        var results: [Int32] = []
        for queue in 0..<machine.queueCount {
            while let (_, result) = machine.nextFinished(queue: queue) { results.append(result) }
        }
        #expect(results == Array(repeating: 0, count: offsets.count))
        return most
    }

    /// The cache holds 64 pages, and 64 requests each change another: some wait until a commit has made room.
    @Test("a commit that makes room writes its pages all at once")
    func commitForRoom() throws {
        let scene = Scene(clusterSizeBytes: 4096, tableSizeClusters: 1, imageSizeBytes: 160 << 21, base: .none)
        var options = Machine.Options()
        options.cacheBytes = 64 << 12
        options.depth = 160
        let machine = Machine(disk: try scene.makeDisk(), backing: [], options: options, seed: 1)
        #expect(try machine.open() == nil)
        let most = try most(machine, writesAt: (0..<160).map { $0 << 21 }) { operation in
            if case .storage(.write(_, let byteCount, _)) = operation.kind { byteCount == 4096 } else { false }
        }
        #expect(most >= 32, "\(most) pages were on their way at once")
        #expect(try machine.close() == nil)
    }

    /// New clusters are reserved in the order in which requests come, whatever their queue: those of a queue do not follow
    /// each other in the file.
    @Test("copies of several queues are as many at once as those of one", arguments: [1, 4])
    func copies(queueCount: Int) throws {
        let scene = Scene(clusterSizeBytes: 4096, imageSizeBytes: 8 << 20, base: .raw)
        var options = Machine.Options()
        options.queueCount = queueCount
        options.depth = 64
        let machine = Machine(disk: try scene.makeDisk(), backing: try scene.makeBacking(), options: options, seed: 1)
        #expect(try machine.open() == nil)
        // The tables are there, and each queue has asked for the base's holes.
        let pages = (0..<4).map { UInt64($0) << 21 }
        _ = try most(machine, writesAt: pages) { _ in false }
        _ = try most(machine, writesAt: (0..<4).map { UInt64($0) << 14 + 8192 }) { _ in false }
        // Not neighbours: each is read by itself.
        let offsets = (0..<(16 * queueCount)).map { UInt64($0) * 16384 + 4096 }
        let reads = try most(machine, writesAt: offsets) { operation in
            if case .storage(.read) = operation.kind { true } else { false }
        }
        #expect(reads >= 12 * queueCount, "\(reads) of \(offsets.count) copies were read at once")
        #expect(try machine.close() == nil)
    }
}
