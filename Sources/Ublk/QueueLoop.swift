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
/// One thread runs it from beginning to end: the driver takes a queue's commands from the thread that fetched (6.12), and
/// runs deliveries as that thread's task work. One turn: everything that has completed is handled, the target's finished
/// requests are committed, and one system call submits all of it and waits.
public final class QueueLoop<Target: BlockTarget> {
    private let queue: UInt16
    private let depth: Int
    private let loop: RingLoop
    private let descriptors: DescriptorTable
    private let buffers: QueueBuffers
    private let target: Target
    /// Of a device whose requests' data stays in their pages.
    private let memory: RequestMemory?
    private let departure: ServerDeparture
    private let device = DeviceFile.registered(index: 0)
    /// Tags that the driver will not use again.
    private var retiredTags = 0
    /// Requests that the target has.
    private var requestsUnderWay = 0
    private var end = QueueEnd.stopped
    /// A timer of the kernel's runs, whose end is the target's next tick. One in a second, instead of a limit for each wait,
    /// for which the kernel would set a timer, and this loop look at the clock, in every turn.
    private var awaitsTick = false
    private let tickInterval = RingInterval(nanoseconds: 1_000_000_000)

    /// The kinds of the tokens of this loop's commands, and of its timer; a target uses others.
    public static var tokenKind: UInt8 { 2 }
    private static var tickTokenKind: UInt8 { 3 }

    /// Sets up the queue on the calling thread, which must go on to `run`.
    /// - Parameters:
    ///   - info: the device as it was negotiated.
    ///   - departure: when it is asked for, `run` returns though the device lives.
    ///   - makeTarget: gets the loop that carries the target's I/O and tasks; and who lends memory, where the device's
    ///     requests keep their data.
    public init(
        device: UblkCharacterDevice, info: UblkDeviceInfo, queue: Int, departure: ServerDeparture,
        makeTarget: (RingLoop, RequestMemory?) throws -> Target
    ) throws {
        self.queue = UInt16(queue)
        self.departure = departure
        depth = info.queueDepth
        // The commands of all tags, and beside them a few operations of the target for each.
        let entries = UInt32(max(depth * 2, 64))
        loop = try RingLoop(entries: entries, completionEntries: entries * 4)
        do {
            try loop.ring.registerFiles([device.descriptor])
            if info.isZeroCopy { try loop.ring.registerEmptyBuffers(count: depth) }
            buffers = try QueueBuffers(depth: depth, maxIOSizeBytes: info.maxIOSizeBytes)
            descriptors = try DescriptorTable.map(device, queue: queue, depth: depth)
        } catch {
            loop.close()
            throw error
        }
        memory =
            info.isZeroCopy
            ? RequestMemory(
                device: device.descriptor, queue: queue, depth: depth, descriptors: descriptors,
                buffer: buffers.bufferOfTag)
            : nil
        do {
            target = try makeTarget(loop, memory)
        } catch {
            descriptors.unmap()
            loop.close()
            throw error
        }
        departure.wakes(loop.executor)
    }

    /// Why the I/O buffers may be swapped out; nil where they may not.
    public var bufferLockFailure: Errno? { buffers.lockFailure }

    /// Serves until the device stops or the server departs. Everything is released when it returns, but for the character
    /// device itself.
    ///
    /// When the server departs, what the target has is finished and answered. What is delivered later is left alone: the
    /// kernel gives it to the next server, as it does with what a killed one had (`recoveryReissue`).
    public func run() -> QueueEnd {
        for tag in 0..<depth { fetch(tag) }
        while retiredTags < depth || requestsUnderWay > 0 {
            turn(waits: true)
            guard departure.isAsked && requestsUnderWay == 0 else { continue }
            if retiredTags < depth { end = .left }
            // The last answers are prepared, not sent.
            turn(waits: false)
            break
        }
        target.stop()
        loop.executor.runReady()
        while !target.isStopped { turn(waits: true) }
        descriptors.unmap()
        loop.close()
        return end
    }

    private func turn(waits: Bool) {
        // As the image was opened, or as a task has left it.
        if !awaitsTick && target.needsTick { awaitTick() }
        loop.turn(waits: waits) { token, result in
            if token.kind == Self.tokenKind {
                commandCompleted(tag: token.slot, result)
            } else if token.kind == Self.tickTokenKind {
                awaitsTick = false
            } else {
                target.completed(token, result)
            }
        }
        if !awaitsTick && target.needsTick {
            target.tick(nowMilliseconds: cs_monotonic_nanoseconds() / 1_000_000)
            awaitTick()
        }
        target.endOfBatch()
        loop.executor.runReady()
        while let (tag, result) = target.nextFinished() { commit(tag, result) }
    }

    private func commandCompleted(tag: Int, _ result: Int32) {
        switch FetchResult(result: result) {
        case .request:
            if departure.isAsked { return }
            requestsUnderWay += 1
            if let memory {
                startRegistered(tag, memory)
            } else {
                target.start(tag: tag, descriptors[tag], buffer: buffers.buffer(tag), isRegistered: false)
            }
        case .aborted:
            retiredTags += 1
        case .needsData:
            retire(tag, .invalidArgument)
        case .refused(let code):
            retire(tag, Errno(rawValue: -code))
        }
    }

    private func startRegistered(_ tag: Int, _ memory: RequestMemory) {
        let request = descriptors[tag]
        var isRegistered = true
        // The kernel had no memory for it, most likely.
        if request.flags.contains(.needsBufferRegistration) {
            isRegistered = false
            let result = memory.borrow(tag)
            if result != 0 { return commit(tag, result) }
        }
        target.start(tag: tag, request, buffer: buffers.buffer(tag), isRegistered: isRegistered)
    }

    private func retire(_ tag: Int, _ errno: Errno) {
        retiredTags += 1
        if end == .stopped { end = .refused(tag: tag, errno: errno) }
    }

    private func fetch(_ tag: Int) {
        QueueCommands.fetch(
            on: loop.ring, device: device, queue: queue, tag: UInt16(tag), data: data(tag),
            token: CompletionToken(kind: Self.tokenKind, slot: tag))
    }

    /// The driver is told the whole size, or an error: anything between is lost or repeated, depending on the kernel.
    private func commit(_ tag: Int, _ result: Int32) {
        requestsUnderWay -= 1
        var answer = result
        if let memory { answer = memory.giveBack(tag, result) }
        if answer >= 0 {
            let request = descriptors[tag]
            switch request.operation {
            case .read, .write: answer = Int32(truncatingIfNeeded: request.sizeBytes)
            default: answer = 0
            }
        }
        precondition(answer != -EAGAIN, "the block layer would take EAGAIN for a wish to be asked again")
        QueueCommands.commitAndFetch(
            on: loop.ring, device: device, queue: queue, tag: UInt16(tag), result: answer, data: data(tag),
            token: CompletionToken(kind: Self.tokenKind, slot: tag))
    }

    private func data(_ tag: Int) -> TagData {
        memory != nil ? .registered(index: UInt16(tag)) : .copied(buffers.buffer(tag))
    }

    private func awaitTick() {
        awaitsTick = true
        loop.ring.submit(tickInterval, token: CompletionToken(kind: Self.tickTokenKind, slot: 0))
    }
}
