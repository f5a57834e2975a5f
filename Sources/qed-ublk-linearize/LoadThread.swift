import CSupport
import Glibc
import Platform
import RealDisk
import Simulation

/// A fault that the test itself commits, to show that it would notice one of the disk's.
enum InjectedFault: String, CaseIterable {
    /// Some writes are not done.
    case lostWrites = "lost-writes"
    /// Some reads return what was there when the round began.
    case staleReads = "stale-reads"
}

/// What the threads of a round have in common.
struct Round: @unchecked Sendable {
    // SAFETY: only read after it has been made.
    let device: BlockDevice
    let clock: EventClock
    /// The first byte of the round's range of the disk.
    let offset: Int
    let sectorCount: Int
    let initial: [UInt64]
    let fault: InjectedFault?
}

/// A thread that asks for one random operation after the other, bound to one processor, so that the threads use all of the
/// disk's queues.
final class LoadThread: @unchecked Sendable {
    // SAFETY: the thread's until it is joined.
    private(set) var operations: [Operation] = []
    private let round: Round
    private let count: Int
    private let firstRequest: Int
    private let processor: Int
    private var random: SeededRandom
    private var thread: BackgroundThread?

    /// Starts it.
    init(_ round: Round, count: Int, firstRequest: Int, processor: Int, random: SeededRandom) {
        self.round = round
        self.count = count
        self.firstRequest = firstRequest
        self.processor = processor
        self.random = random
        do { thread = try BackgroundThread { [self] in run() } } catch { preconditionFailure("no thread: \(error)") }
    }

    func join() { thread?.join() }

    private func run() {
        // Where it may not run there it runs elsewhere.
        cs_bind_thread([Int32(processor)], 1)
        let buffer = AlignedBuffer(byteCount: round.sectorCount * 512)
        operations.reserveCapacity(count)
        for index in 0..<count {
            operations.append(perform(choose(request: firstRequest + index), buffer.address))
            if operations[index].failure != 0 { return }
        }
    }

    private func choose(request: Int) -> Operation {
        let kind: Operation.Kind =
            switch random.below(100) {
            case ..<40: .read
            case ..<76: .write
            case ..<82: .zero
            case ..<88: .punch
            case ..<94: .discard
            default: .flush
            }
        let block = round.device.blockSectors
        let blocks = round.sectorCount / block
        // Mostly small, so that many meet in a sector; sometimes all of it.
        let longest = random.pick([1, 1, 8, 8, 64, blocks])
        let length = 1 + random.below(min(longest, blocks))
        let first = random.below(blocks - length + 1)
        return Operation(kind: kind, sectors: first * block..<(first + length) * block, request: request, start: 0)
    }

    private func perform(_ chosen: Operation, _ buffer: UnsafeMutableRawPointer) -> Operation {
        var operation = chosen
        let offset = round.offset + operation.sectors.lowerBound * 512
        let byteCount = operation.sectors.count * 512
        if operation.kind == .write {
            for (index, sector) in operation.sectors.enumerated() {
                SectorValue.fill(buffer + index * 512, operation.value(ofSector: sector))
            }
        }
        let isFaulty = random.chance(1, in: 40)
        let window = KillWindow.state
        operation.start = round.clock.tick()
        operation.failure =
            switch operation.kind {
            case .read: round.device.read(buffer, offset: offset, byteCount: byteCount)
            case .write where round.fault == .lostWrites && isFaulty: 0
            case .write: round.device.write(buffer, offset: offset, byteCount: byteCount)
            case .zero: round.device.zero(offset: offset, byteCount: byteCount)
            case .punch: round.device.punch(offset: offset, byteCount: byteCount)
            case .discard: round.device.discard(offset: offset, byteCount: byteCount)
            case .flush: round.device.flush()
            }
        operation.end = round.clock.tick()
        operation.mayRepeat = KillWindow.wasOpen(since: window)
        if operation.kind == .read && operation.failure == 0 {
            operation.take(buffer)
            if round.fault == .staleReads && isFaulty { operation.values = Array(round.initial[operation.sectors]) }
        }
        return operation
    }
}

extension Operation {
    /// The values of what was read.
    mutating func take(_ buffer: UnsafeMutableRawPointer) {
        values = sectors.indices.map { SectorValue.read(buffer + ($0 - sectors.lowerBound) * 512) }
        for (index, value) in values.enumerated() where value == SectorValue.mixed {
            let words = UnsafeRawBufferPointer(start: buffer + index * 512, count: 512).bindMemory(to: UInt64.self)
            torn[sectors.lowerBound + index] = Set(words)
        }
    }
}
