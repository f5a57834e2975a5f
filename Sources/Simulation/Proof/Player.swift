import Glibc
import QEDEngine
import SystemPackage

/// A request as histories describe it: sectors, not bytes.
public struct PlayedRequest: Sendable, CustomStringConvertible {
    public var operation: BlockOperation
    public var sectors: Range<Int>
    public var forcesUnitAccess = false
    public var keepsSpace = false

    public init(_ operation: BlockOperation, _ sectors: Range<Int> = 0..<0, fua: Bool = false, keepsSpace: Bool = false) {
        self.operation = operation
        self.sectors = sectors
        forcesUnitAccess = fua
        self.keepsSpace = keepsSpace
    }

    public var description: String {
        operation == .flush
            ? "flush"
            : "\(operation)\(forcesUnitAccess ? " (FUA)" : "")\(keepsSpace ? " (NOUNMAP)" : "") "
                + "\(sectors.lowerBound)+\(sectors.count)"
    }
}

/// Plays requests on a machine and on the model, many at once, and judges every answer.
final class Player {
    private struct Pending {
        var request: PlayedRequest
        var number: Int
        var start: Int
        var syncHadFailed: Bool
    }

    private(set) var machine: Machine
    var history: SectorHistory
    /// By queue and slot.
    private var pending: [Pending?]
    private let depth: Int
    private let buffers: UnsafeMutableRawPointer
    private let bufferBytes: Int
    private var nextNumber: Int
    private var notedFaultCount = 0
    private(set) var pendingCount = 0
    private(set) var finishedCount = 0
    /// Errors that requests may be answered with; none without faults.
    var allowedErrors: Set<Int32> = []
    /// Requests that were answered with an error.
    private(set) var errorCount = 0
    /// What has happened, for people.
    private(set) var log: [String] = []
    var keepsLog = false

    init(machine: Machine, history: SectorHistory, depth: Int, largestSectors: Int, firstNumber: Int = 1) {
        self.machine = machine
        self.history = history
        self.depth = depth
        bufferBytes = largestSectors * 512
        nextNumber = firstNumber
        pending = Array(repeating: nil, count: depth * machine.queueCount)
        buffers = .allocate(byteCount: bufferBytes * pending.count, alignment: 4096)
    }

    deinit { buffers.deallocate() }

    var hasFreeSlot: Bool { pendingCount < pending.count }
    var lastNumber: Int { nextNumber }

    func start(_ request: PlayedRequest) {
        guard let slot = freeSlot() else { preconditionFailure("no slot is free") }
        let number = nextNumber
        nextNumber += 1
        let time = history.advance()
        let buffer = buffers + slot * bufferBytes
        var block = BlockRequest(
            request.operation, deviceOffset: UInt64(request.sectors.lowerBound) * 512,
            byteCount: UInt64(request.sectors.count) * 512, forcesUnitAccess: request.forcesUnitAccess,
            keepsSpace: request.keepsSpace)
        switch request.operation {
        case .read:
            block.buffer = buffer
            memset(buffer, 0xee, request.sectors.count * 512)
        case .write:
            block.buffer = buffer
            for (index, sector) in request.sectors.enumerated() {
                SectorValue.fill(buffer + index * 512, Self.value(of: number, sector))
            }
        case .writeZeroes, .discard: break
        case .flush:
            block = BlockRequest(.flush)
        }
        begin(request, number: number, at: time, in: &history)
        pending[slot] = Pending(
            request: request, number: number, start: time, syncHadFailed: machine.io.failedSyncs > 0)
        pendingCount += 1
        if keepsLog { log.append("\(time): #\(number) \(request) begins") }
        machine.start(queue: slot / depth, slot: slot % depth, block)
    }

    private func freeSlot() -> Int? {
        let start = machine.random.below(pending.count)
        for offset in 0..<pending.count where pending[(start + offset) % pending.count] == nil {
            return (start + offset) % pending.count
        }
        return nil
    }

    /// Takes the answers that have come.
    func poll() throws {
        noteFaults()
        for queue in 0..<machine.queueCount {
            while let (slot, result) = machine.nextFinished(queue: queue) {
                try finish(queue * depth + slot, result)
            }
        }
    }

    private func noteFaults() {
        guard machine.faultCount != notedFaultCount else { return }
        notedFaultCount = machine.faultCount
        for case let other? in pending where other.request.operation != .read {
            for sector in other.request.sectors { history.metFault(sector, request: other.number) }
        }
    }

    private func finish(_ slot: Int, _ result: Int32) throws {
        guard let done = pending[slot] else { throw Violation("slot \(slot) was answered twice") }
        pending[slot] = nil
        pendingCount -= 1
        finishedCount += 1
        let time = history.advance()
        if keepsLog { log.append("\(time): #\(done.number) \(done.request) answered \(result)") }
        if result != 0 {
            errorCount += 1
            guard allowedErrors.contains(-result) else {
                throw Violation("\(done.request) is answered with \(result)")
            }
        }
        switch done.request.operation {
        case .read:
            if result == 0 { try checkRead(done, buffers + slot * bufferBytes) }
        case .write, .writeZeroes, .discard:
            let replaces = result == 0 && done.request.operation != .discard
            for sector in done.request.sectors {
                history.end(sector, request: done.number, at: time, replaces: replaces)
            }
        case .flush:
            if result == 0 {
                if done.syncHadFailed { throw Violation("a flush succeeds after a sync has failed") }
                history.flushed(start: done.start)
            }
        }
        if done.request.forcesUnitAccess && result == 0 && done.syncHadFailed {
            throw Violation("a FUA write succeeds after a sync has failed")
        }
    }

    private func checkRead(_ done: Pending, _ buffer: UnsafeRawPointer) throws {
        for (index, sector) in done.request.sectors.enumerated() {
            let value = SectorValue.read(buffer + index * 512)
            guard history.read(sector, value, start: done.start) else {
                throw Violation(
                    "\(done.request), begun at \(done.start), reads \(String(value, radix: 16)) in sector \(sector); "
                        + history.explain(sector))
            }
        }
    }

    // MARK: - Requests that are kept

    private var kept: [Pending] {
        pending.enumerated().compactMap { slot, request in
            request.flatMap { machine.queues[slot / depth].keeps(slot % depth) ? $0 : nil }
        }
    }

    /// Requests that came while their queue was held, and were not started.
    var keptCount: Int { kept.count }

    /// As if they had not come: nobody has done anything for them.
    var historyWithoutKept: SectorHistory {
        var history = self.history
        for request in kept where request.request.operation != .read {
            for sector in request.request.sectors { history.withdraw(sector, request: request.number) }
        }
        return history
    }

    /// They will never be started.
    func withdrawKept() { history = historyWithoutKept }

    /// The disk holds what it held at another time, durably, before any of these begins.
    func goBack(to value: (Int) -> UInt64) {
        var after = historyWithoutKept
        let time = after.advance()
        for sector in 0..<Int(after.sizeBytes / 512) where after.isTouched(sector) {
            after.settle(sector, value: value(sector))
        }
        _ = after.advance()
        after.flushed(start: time + 1)
        let start = after.advance()
        for slot in pending.indices where machine.queues[slot / depth].keeps(slot % depth) {
            guard let request = pending[slot] else { continue }
            pending[slot]?.start = start
            begin(request.request, number: request.number, at: start, in: &after)
        }
        history = after
    }

    private func begin(_ request: PlayedRequest, number: Int, at time: Int, in history: inout SectorHistory) {
        guard request.operation != .read else { return }
        for sector in request.sectors {
            history.begin(
                sector, value: request.operation == .write ? Self.value(of: number, sector) : 0, at: time, request: number,
                forcesUnitAccess: request.forcesUnitAccess)
        }
    }

    private static func value(of number: Int, _ sector: Int) -> UInt64 { UInt64(number) << 24 | UInt64(sector) }

    /// Another machine goes on, and what was under way will never be answered.
    func goOn(with machine: Machine) {
        self.machine = machine
        notedFaultCount = machine.faultCount
        pending = Array(repeating: nil, count: pending.count)
        pendingCount = 0
    }

    /// Every request must be answered.
    /// - Parameter beforeAnswers: runs between a step and the answers that came with it.
    func drain(beforeAnswers: () throws -> Void = {}, afterStep: (Bool) throws -> Void) throws {
        for _ in 0..<Machine.longestRun {
            try poll()
            if pendingCount == 0 { return }
            guard let completed = machine.step() else {
                try poll()
                if pendingCount == 0 { return }
                throw Machine.Hang(reason: "nothing is ready, nothing in flight; waiting: \(waiting)")
            }
            try beforeAnswers()
            try poll()
            machine.endOfBatch()
            try afterStep(completed)
        }
        throw Machine.Hang(reason: "requests go on for ever: \(waiting)")
    }

    private var waiting: [String] { pending.compactMap { $0 }.map { "#\($0.number) \($0.request)" } }
}
