import BlockStorage
import Glibc
import Platform
import QEDEngine
import Synchronization

/// Shared memory that outlives a simulated process: its image's mapping log, and what a process leaves there that dies
/// between any two of its stores.
public final class SimulatedSession: @unchecked Sendable {
    // SAFETY: a simulation has one thread. Both blocks are `sizeBytes` long, allocated here and freed in deinit.
    private let memory: UnsafeMutableRawPointer
    /// The memory as of the moment that is being looked at: behind by the stores that are pending.
    private let left: UnsafeMutableRawPointer
    private let sizeBytes: Int
    private let trace = StoreTrace()
    private static let image = FileIdentity(high: 1, low: 2)
    /// On which boot of the machine: a session that inherits nothing is another boot's.
    private var boot: BootIdentity
    private static let boots = Atomic<UInt64>(0)
    /// Random in life; here a history is to be the same whenever it is repeated.
    private var engines: UInt64 = 0

    public init(capacity: Int) {
        sizeBytes = MappingLog.sizeBytes(capacity: capacity)
        memory = .allocate(byteCount: sizeBytes, alignment: 4096)
        left = .allocate(byteCount: sizeBytes, alignment: 4096)
        memset(memory, 0, sizeBytes)
        memset(left, 0, sizeBytes)
        boot = BootIdentity(
            high: 1, low: SimulatedSession.boots.wrappingAdd(1, ordering: .relaxed).newValue)
    }

    deinit {
        memory.deallocate()
        left.deallocate()
    }

    /// As an engine takes it. The session outlives the engine.
    var engineMemory: SessionMemory {
        engines += 1
        return SessionMemory(
            address: memory, sizeBytes: sizeBytes,
            owner: MappingLog.Owner(image: SimulatedSession.image, boot: boot), newSession: engines, trace: trace)
    }

    /// Becomes what the process of `other`, of the same size, leaves at the moment that is being looked at.
    func inherit(from other: SimulatedSession) {
        precondition(sizeBytes == other.sizeBytes, "sessions of different sizes")
        memcpy(memory, other.left, sizeBytes)
        memcpy(left, other.left, sizeBytes)
        boot = other.boot
        engines = other.engines
        _ = trace.takeAll()
    }

    /// Becomes what is left of `other`, of the same size, after a power cut where its memory was a file on a disk.
    func survivePowerCut(of other: SimulatedSession) {
        let boot = self.boot
        other.catchUp()
        inherit(from: other)
        self.boot = boot
    }

    /// Moves on to now, store by store.
    /// - Parameter body: is called between any two stores, with how many there are in all; not after the last.
    func catchUp(_ body: (Int) throws -> Void) rethrows {
        if trace.isEmpty { return }
        let stores = trace.takeAll()
        for (index, store) in stores.enumerated() {
            left.storeBytes(of: store.value, toByteOffset: store.offset, as: UInt64.self)
            if index < stores.count - 1 { try body(stores.count) }
        }
        precondition(memcmp(left, memory, sizeBytes) == 0, "a store to the log that was not traced")
    }

    /// Moves on to now.
    func catchUp() { catchUp { _ in } }
}
