import BlockStorage
import Glibc
import IOURing
import SystemPackage

/// What has been submitted to the disks of one machine and has not completed. Which operation completes next is up to
/// the seed.
final class SimulatedIO: @unchecked Sendable {
    // SAFETY: a simulation has one thread.
    enum Kind {
        case storage(StorageOperation)
        case setLength(UInt64)
        /// Makes the names of the image's files durable.
        case syncNames(SimulatedNames)
        /// Ends at any time.
        case pause
    }

    struct Operation {
        var kind: Kind
        var disk: SimulatedDisk
        var queue: Int
        var token: CompletionToken
        /// For a sync: what had completed when it was submitted.
        var coveredSequence: Int
        /// Completes after everything else, mostly.
        var isSlow: Bool
    }

    private(set) var inFlight: [Operation] = []
    /// The machine is being taken down: operations fail at once and touch no disk.
    var isDead = false
    var fault: Fault?
    /// Operations that have completed.
    private(set) var completedCount = 0
    private(set) var faultCount = 0
    /// Of the disks that requests go to.
    private(set) var failedSyncs = 0
    /// One to which none goes: what fails there is not the image's.
    var unserved: SimulatedDisk?

    var slowPercent = 10
    /// The time that the engine sees.
    var nanoseconds: UInt64 { UInt64(completedCount) * 100_000 }

    func submit(
        _ kind: Kind, disk: SimulatedDisk, queue: Int, token: CompletionToken, alignment: StorageAlignment
    ) {
        if case .storage(let operation) = kind { checkAlignment(of: operation, alignment) }
        // Whether it is slow follows from its number: no draw here, where the engine and not the machine runs.
        let isSlow = (inFlight.count &* 37 &+ completedCount &* 61) % 100 < slowPercent
        inFlight.append(
            Operation(
                kind: kind, disk: disk, queue: queue, token: token, coveredSequence: disk.sequence, isSlow: isSlow))
    }

    private func checkAlignment(of operation: StorageOperation, _ alignment: StorageAlignment) {
        func check(_ buffer: UnsafeRawPointer?, _ byteCount: Int, _ fileOffset: UInt64) {
            precondition(
                fileOffset % UInt64(alignment.offsetBytes) == 0 && byteCount % alignment.offsetBytes == 0,
                "an operation at \(fileOffset) of \(byteCount) bytes where multiples of \(alignment.offsetBytes) are asked for")
            precondition(
                byteCount == 0 || UInt(bitPattern: buffer) % UInt(alignment.memoryBytes) == 0,
                "a buffer that is not aligned")
        }
        switch operation {
        case .read(let buffer, let byteCount, let fileOffset): check(buffer, Int(byteCount), fileOffset)
        case .write(let buffer, let byteCount, let fileOffset): check(buffer, Int(byteCount), fileOffset)
        case .writeGathered(let vectors, let count, let fileOffset):
            for index in 0..<Int(count) { check(vectors[index].base, vectors[index].byteCount, fileOffset) }
        case .sync, .allocate, .punchHole, .zeroRange: break
        }
    }

    /// Completes one operation: its effect on the disk happens now.
    func completeOne(_ random: inout SeededRandom) -> (operation: Operation, result: Int32) {
        var index = random.below(inFlight.count)
        if inFlight[index].isSlow, random.chance(15, in: 16), let other = inFlight.firstIndex(where: { !$0.isSlow }) {
            index = other
        }
        let operation = inFlight.remove(at: index)
        if case .pause = operation.kind { return (operation, 0) }
        let number = completedCount
        completedCount += 1
        if isDead { return (operation, -EIO) }
        if let fault, fault.strikes(number, isSync: operation.isSync) {
            faultCount += 1
            if fault.isOfSyncs && !fault.isPersistent { self.fault = nil }
            return (operation, fail(operation, fault.effect, &random))
        }
        return (operation, operation.perform(on: operation.disk, limit: Int.max))
    }

    private func fail(_ operation: Operation, _ effect: Fault.Effect, _ random: inout SeededRandom) -> Int32 {
        let byteCount = operation.transferBytes
        let sectors = byteCount / SparsePages.sectorBytes
        switch effect {
        case .short:
            guard sectors > 1 else { return operation.perform(on: operation.disk, limit: Int.max) }
            let count = 1 + random.below(sectors - 1)
            return operation.perform(on: operation.disk, limit: count * SparsePages.sectorBytes)
        case .error(let errno):
            // An interrupted operation has done nothing; any other may have done a part.
            if !effect.doesNothing {
                switch operation.kind {
                case .storage(.write), .storage(.writeGathered):
                    let count = random.below(sectors + 1)
                    _ = operation.perform(on: operation.disk, limit: count * SparsePages.sectorBytes)
                case .storage(.sync):
                    operation.disk.loseSome(&random)
                    if operation.disk !== unserved { failedSyncs += 1 }
                case .storage(.allocate(let fileOffset, let count, _)) where random.chance(1, in: 2):
                    operation.disk.setLengthAtLeast(fileOffset + count / 2 / 4096 * 4096)
                default: break
                }
            }
            return -errno.rawValue
        }
    }
}

extension SimulatedIO.Operation {
    /// Does the operation.
    /// - Parameter limit: the most bytes that a transfer moves.
    /// - Returns: the result of a success.
    func perform(on disk: SimulatedDisk, limit: Int) -> Int32 {
        switch kind {
        case .pause: break
        case .setLength(let length):
            disk.setLength(length)
        case .syncNames(let names):
            names.areDurable = true
        case .storage(.read(let buffer, let byteCount, let fileOffset)):
            return Int32(disk.read(into: buffer, byteCount: min(Int(byteCount), limit), at: fileOffset))
        case .storage(.write(let buffer, let byteCount, let fileOffset)):
            let count = min(Int(byteCount), limit)
            disk.write(buffer, byteCount: count, at: fileOffset)
            return Int32(count)
        case .storage(.writeGathered(let vectors, let vectorCount, let fileOffset)):
            var done = 0
            for index in 0..<Int(vectorCount) {
                let count = min(vectors[index].byteCount, limit - done)
                if let base = vectors[index].base, count > 0 {
                    disk.write(base, byteCount: count, at: fileOffset + UInt64(done))
                    done += count
                }
            }
            return Int32(done)
        case .storage(.sync):
            disk.makeDurable(upTo: coveredSequence)
        case .storage(.allocate(let fileOffset, let byteCount, let zeroed)):
            if zeroed {
                // A disk that can, until it is asked for the last of four clusters.
                if (fileOffset >> 16) % 4 == 3 { return -EOPNOTSUPP }
                precondition(disk.isZero(from: fileOffset, byteCount: byteCount), "space with data in it is to be zeroed")
            }
            disk.setLengthAtLeast(fileOffset + byteCount)
        case .storage(.punchHole(let fileOffset, let byteCount)), .storage(.zeroRange(let fileOffset, let byteCount)):
            disk.zero(byteCount: byteCount, at: fileOffset)
        }
        return 0
    }

    /// A timer is not.
    var isOfStorage: Bool {
        if case .pause = kind { return false }
        return true
    }

    var isSync: Bool {
        if case .storage(.sync) = kind { return true }
        return false
    }

    var transferBytes: Int {
        switch kind {
        case .storage(.read(_, let byteCount, _)), .storage(.write(_, let byteCount, _)): return Int(byteCount)
        case .storage(.writeGathered(let vectors, let count, _)):
            return (0..<Int(count)).reduce(0) { $0 + vectors[$1].byteCount }
        default: return 0
        }
    }
}
