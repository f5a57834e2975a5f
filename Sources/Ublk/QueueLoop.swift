import CSupport
import Glibc
import IOURing
import SystemPackage

/// How a queue's loop ended.
public enum QueueEnd: Equatable, Sendable {
    /// The device was stopped: every tag came back aborted.
    case stopped
    /// The server departs, and the device waits for another one.
    case left
    /// The driver refused a command: a defect of ours or the driver's. The errno, and for which tag.
    case refused(tag: Int, errno: Errno)
}

/// A hardware queue: fetches its tags, hands their requests to a target and commits the results, until the device stops.
///
/// One thread runs it from beginning to end. One turn: everything that has completed is handled, messages are taken from the
/// mailbox, the target's finished requests are committed, and one system call submits all of it and waits. In which order, and
/// what a target may rely on, says `BlockTarget`.
public final class QueueLoop<Ring: QueueRing, Target: BlockTarget> {
    private let ring: Ring
    private let target: Target
    private let mailbox: QueueMailbox<Target>
    private var tags: TagLedger
    private var statistics = QueueStatistics()
    /// Who waits for the queue to be quiet.
    private var holders: [Answer<QueueReply<Void>>] = []
    private var end = QueueEnd.stopped
    /// A timer of the kernel's runs, whose end is the target's next tick. One in a second, instead of a limit for each wait,
    /// for which the kernel would set a timer, and this loop look at the clock, in every turn.
    private var awaitsTick = false
    /// When the request of each tag arrived whose latency is wanted; 0: it is not.
    // SAFETY: one for each tag; used by the loop alone, and freed with it.
    private let arrivals: UnsafeMutablePointer<UInt64>
    /// When this turn's completions came, as far as somebody has looked at the clock; 0: nobody has.
    private var turnNanoseconds: UInt64 = 0

    /// The latencies of the requests of one turn in so many are looked at: the clock costs about as much as a tenth of a request.
    static var turnsForASample: UInt64 { 8 }

    /// The kinds of the tokens of this loop's commands, and of its timer; a target uses others.
    public static var tokenKind: UInt8 { 2 }
    static var tickTokenKind: UInt8 { 3 }

    /// On the thread that made the ring, which must go on to `run`.
    /// - Parameter target: has its I/O and its tasks on the same ring.
    public init(ring: Ring, target: Target, mailbox: QueueMailbox<Target>) {
        self.ring = ring
        self.target = target
        self.mailbox = mailbox
        tags = TagLedger(depth: ring.depth)
        arrivals = .allocate(capacity: ring.depth)
        arrivals.initialize(repeating: 0, count: ring.depth)
        mailbox.open(waker: ring.waker)
    }

    deinit { arrivals.deallocate() }

    /// Serves until the device stops or the server departs. The mailbox is closed when it returns; the ring is not: see
    /// `DriverQueue.close`.
    ///
    /// When the server departs, what the target has is finished and answered, unless the target gives that up. What is delivered
    /// later is left alone: the kernel gives it to the next server, as it does with what a killed one had (`recoveryReissue`).
    public func run() -> QueueEnd {
        for tag in 0..<ring.depth { ring.fetch(tag, token: token(tag)) }
        while !tags.hasEnded { turn(waits: true) }
        // Before the last turn: whoever would hold the queue now would hold one that ends.
        mailbox.close()
        if tags.hasLeft {
            end = .left
            // The last answers are prepared, not sent.
            turn(waits: false)
        }
        target.stop()
        ring.runReady()
        while !target.isStopped { turn(waits: true) }
        ring.end()
        return end
    }

    private func turn(waits: Bool) {
        // As the image was opened, or as a task has left it.
        if !awaitsTick && needsTick { awaitTick() }
        turnNanoseconds = 0
        ring.turn(waits: waits) { token, result in
            if token.kind == Self.tokenKind {
                commandCompleted(tag: token.slot, result)
            } else if token.kind == Self.tickTokenKind {
                awaitsTick = false
            } else {
                target.completed(token, result)
            }
        }
        statistics.turns &+= 1
        if !mailbox.isEmpty { takeMessages() }
        // Nothing of the target's begins on a queue that was said to be quiet, be it only for its housekeeping.
        if !isQuiet {
            if !awaitsTick && needsTick {
                if target.needsTick { target.tick(nowMilliseconds: cs_monotonic_nanoseconds() / 1_000_000) }
                ring.memory?.tick()
                awaitTick()
            }
            target.endOfBatch()
        }
        finishBatch()
        if let memory = ring.memory { startWaiting(memory) }
        if !holders.isEmpty && isQuiet { tellHolders() }
    }

    private var needsTick: Bool { target.needsTick || ring.memory?.needsTick == true }

    private func finishBatch() {
        ring.runReady()
        while let (tag, result) = target.nextFinished() { commit(tag, result) }
    }

    // MARK: - Requests

    private func commandCompleted(tag: Int, _ result: Int32) {
        switch FetchResult(result: result) {
        case .request:
            if statistics.turns % Self.turnsForASample == 0 { sample(tag) }
            if tags.arrive(tag) { start(tag) }
        case .aborted: tags.retire(tag)
        case .needsData: retire(tag, .invalidArgument)
        case .refused(let code): retire(tag, Errno(rawValue: -code))
        }
    }

    @inline(__always)
    private func start(_ tag: Int) {
        let request = ring.request(tag)
        statistics.count(request)
        if let memory = ring.memory {
            switch request.operation {
            case .read, .write:
                // Where the pages are not registered the kernel had no memory for that, most likely.
                if request.flags.contains(.needsBufferRegistration) {
                    startInMemory(tag, request, memory)
                } else {
                    target.start(tag: tag, request, .pages)
                }
            default:
                target.start(tag: tag, request, .none)
            }
        } else {
            target.start(tag: tag, request, .memory(ring.buffer(tag)))
        }
        ring.submitEarly()
    }

    @inline(__always)
    private func startInMemory(_ tag: Int, _ request: RequestDescriptor, _ memory: RequestMemory) {
        switch memory.borrow(tag, isWrite: request.operation == .write, sizeBytes: request.sizeBytes) {
        case .lent(let buffer): target.start(tag: tag, request, .memory(buffer))
        case .deferred: break
        case .refused(let result): commit(tag, result)
        }
    }

    /// Starts the requests that have waited for memory and have it now: what others that were answered have given back, or what
    /// has come into memory.
    @inline(__always)
    private func startWaiting(_ memory: RequestMemory) {
        while let first = memory.nextReady() {
            startInMemory(first, ring.request(first), memory)
            while let next = memory.nextReady() { startInMemory(next, ring.request(next), memory) }
            // What they have planned begins now: nothing else may come that would end the turn's wait. Their answers give memory
            // back in turn.
            target.endOfBatch()
            finishBatch()
        }
    }

    private func retire(_ tag: Int, _ errno: Errno) {
        tags.retire(tag)
        if end == .stopped { end = .refused(tag: tag, errno: errno) }
    }

    /// Of this turn: the clock is looked at once.
    private var now: UInt64 {
        if turnNanoseconds == 0 { turnNanoseconds = cs_monotonic_nanoseconds() }
        return turnNanoseconds
    }

    /// A request arrives, and is looked at more closely.
    @inline(never)
    private func sample(_ tag: Int) {
        arrivals[tag] = now
        guard tags.admission == .starting else { return }
        statistics.largestUnderWay = max(statistics.largestUnderWay, UInt64(tags.underWay) + 1)
    }

    @inline(never)
    private func recordLatency(_ tag: Int) {
        let nanoseconds = now - arrivals[tag]
        arrivals[tag] = 0
        switch ring.request(tag).operation {
        case .read: statistics.latencies.record(.read, nanoseconds: nanoseconds)
        case .write: statistics.latencies.record(.write, nanoseconds: nanoseconds)
        case .flush: statistics.latencies.record(.flush, nanoseconds: nanoseconds)
        default: break
        }
    }

    /// The driver is told the whole size, or an error: anything between is lost or repeated, depending on the kernel.
    @inline(__always)
    private func commit(_ tag: Int, _ result: Int32) {
        if result == -ECANCELED && tags.isLeaving { return giveUp(tag) }
        tags.finish(tag)
        if arrivals[tag] != 0 { recordLatency(tag) }
        var answer = result
        if let memory = ring.memory { answer = memory.giveBack(tag, result) }
        if answer >= 0 {
            let request = ring.request(tag)
            switch request.operation {
            case .read, .write: answer = Int32(truncatingIfNeeded: request.sizeBytes)
            default: answer = 0
            }
        } else {
            statistics.failures &+= 1
        }
        precondition(answer != -EAGAIN, "the block layer would take EAGAIN for a wish to be asked again")
        ring.commitAndFetch(tag, result: answer, token: token(tag))
    }

    /// The kernel gives it to the next server, like one of a server that was killed.
    @inline(never)
    private func giveUp(_ tag: Int) {
        arrivals[tag] = 0
        _ = ring.memory?.giveBack(tag, -ECANCELED)
        tags.giveUp(tag)
    }

    @inline(__always)
    private func token(_ tag: Int) -> CompletionToken { CompletionToken(kind: Self.tokenKind, slot: tag) }

    private func awaitTick() {
        awaitsTick = true
        ring.awaitTick(token: CompletionToken(kind: Self.tickTokenKind, slot: 0))
    }

    // MARK: - Messages

    private var isQuiet: Bool { tags.isQuiet && target.isQuiet }

    private func takeMessages() {
        for message in mailbox.take() {
            switch message {
            case .ask(let perform):
                statistics.underWay = UInt64(tags.underWay)
                statistics.largestUnderWay = max(statistics.largestUnderWay, statistics.underWay)
                perform((target, statistics))
            case .hold(let holder):
                if tags.admission == .leaving {
                    holder.give(.ended)
                } else {
                    tags.hold()
                    holders.append(holder)
                }
            case .resume:
                // That of a hold that was refused has nothing to end.
                guard tags.admission == .holding else { continue }
                for tag in tags.resume() { start(tag) }
                // Who has resumed before it was quiet waits no more.
                if tags.admission != .holding { holders = [] }
            case .leave:
                tags.leave()
            }
        }
    }

    private func tellHolders() {
        // The last answers are prepared, not sent.
        ring.submit()
        for holder in holders { holder.give(.done(())) }
        holders = []
    }
}
