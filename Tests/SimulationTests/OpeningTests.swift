import BlockStorage
import QEDEngine
import SystemPackage
import Testing

@testable import Simulation

/// How an image is opened that has many tables: a disk is waited for once for many of them, not once for each. A mounted
/// file system waits meanwhile, after a kill.
@Suite struct OpeningTests {
    /// Each maps 2 MiB.
    private static let tableCount: UInt64 = 96

    private let session = SimulatedSession(capacity: 1024)
    private let disk: SimulatedDisk

    private func machine(_ session: SimulatedSession?) -> Machine {
        var options = Machine.Options()
        options.cacheBytes = 1 << 20
        return Machine(disk: disk, backing: [], options: options, seed: 1, session: session)
    }

    /// An image with an entry in each table, whose process has died.
    init() throws {
        disk = try Scene(
            clusterSizeBytes: 4096, tableSizeClusters: 1, imageSizeBytes: OpeningTests.tableCount << 21, base: .none
        ).makeDisk()
        let first = machine(session)
        #expect(try first.open() == nil)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 512)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 7, count: 512)
        for table in 0..<OpeningTests.tableCount {
            let write = BlockRequest(.write, deviceOffset: table << 21, byteCount: 512, buffer: buffer)
            #expect(try first.perform(write) == 0)
        }
        try first.takeDown()
    }

    /// The most operations that were under way at once.
    private struct Most {
        var reads = 0
        var writes = 0

        mutating func note(_ io: SimulatedIO) {
            var reads = 0
            var writes = 0
            for operation in io.inFlight {
                switch operation.kind {
                case .storage(.read): reads += 1
                case .storage(.write): writes += 1
                default: break
                }
            }
            self.reads = max(self.reads, reads)
            self.writes = max(self.writes, writes)
        }
    }

    @Test func takeover() throws {
        let next = machine(session)
        var most = Most()
        let refusal = try next.open { _ in most.note(next.io) }
        #expect(refusal == nil)
        #expect(next.image?.replayedChanges == Int(OpeningTests.tableCount) * 2)
        #expect(most.reads >= 16 && most.writes >= 16, "\(most)")
        #expect(most.reads <= 32 && most.writes <= 32, "\(most)")
        try next.takeDown()
    }

    /// Without its log, as after a power cut.
    @Test func check() throws {
        let second = machine(session)
        #expect(try second.open() == nil)
        #expect(try second.perform(BlockRequest(.flush)) == 0)
        try second.takeDown()
        let next = machine(nil)
        var most = Most()
        let refusal = try next.open { _ in most.note(next.io) }
        #expect(refusal == nil)
        #expect(next.image?.droppedEntries == 0)
        #expect(most.reads >= 16 && most.reads <= 32, "\(most)")
        try next.takeDown()
    }

    /// Whatever a disk answers first.
    @Test("an error of one of many reads refuses the image, and leaves it as it was", arguments: [5, 20, 60, 100])
    func failure(_ number: Int) throws {
        let before = (disk.length, disk.sequence)
        let next = machine(session)
        next.fault = Fault(.error(.ioError), operation: number, isPersistent: false)
        let refusal = try next.open()
        guard case .image(.storage(let error)) = refusal else {
            Issue.record("\(String(describing: refusal))")
            return
        }
        #expect(error.operation == .read && error.errno == .ioError)
        #expect((disk.length, disk.sequence) == before)
        try next.takeDown()
        let last = machine(session)
        #expect(try last.open() == nil)
        #expect(last.image?.replayedChanges == Int(OpeningTests.tableCount) * 2)
        try last.takeDown()
    }
}
