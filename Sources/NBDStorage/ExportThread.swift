import CNBD
import CSupport
import Glibc
import IOURing
import Platform
import SystemPackage

/// The connections to an export, and the one thread that drives them: it takes requests from everybody, asks the server, asks
/// again where a connection was lost, and gives each request its answer, or an error when its time is over.
final class ExportThread: @unchecked Sendable {
    // SAFETY: what follows `inbox` is the thread's alone.
    let address: NBDAddress
    /// By which it is asked, and told.
    let inbox: ExportInbox

    private let timeout: UInt64?
    private let onChange: @Sendable (ExportCondition) -> Void
    private var ring: Ring?
    /// Of the first connection.
    private var shape: ExportShape?
    /// What any connection must find; nil: the first one says.
    private var sizeBytes: UInt64?
    /// It is not asked any more: the first attempt has failed, or it has another size than it had.
    private var isOver = false
    private var wishes = ExportInbox.Wishes()
    private var connections: [NBDConnection] = []
    private var reconnection = Reconnection()
    private var start: QuickStart
    private var isAway = false
    /// It is away, and a request has waited for it in vain: until it is back others wait for one attempt to connect. Who asks
    /// once more after an error, as kernels and file systems do, would wait as long each time.
    private var hasBeenAwayTooLong = false
    private var pending: [UInt64: PendingRequest] = [:]
    /// Of `pending`, those that no connection has.
    private var waiting: [UInt64] = []
    private var nextNumber: UInt64 = 1
    /// The first `beginningBytes`, once somebody has read them; until it is away.
    private var beginning: [UInt8] = []
    private var thread: BackgroundThread?

    /// A connection that owes an answer and says nothing for so long is given up, as is an attempt to connect. Nanoseconds.
    private let longestSilence: UInt64
    /// Of the beginning of an export so much is kept in memory: where a disk's partition table and superblock are, which are read
    /// first, by one after the other.
    static let beginningBytes = 8192
    private static let mostConnections = 4
    private static let mostRequestsOfConnection = 64
    /// So many requests under way are worth another connection.
    private static let requestsForAnotherConnection = 8

    /// Begins to connect, on a thread of its own.
    /// - Parameters:
    ///   - sizeBytes: of an export that was open before: what comes of the first attempt is like what comes of a later one.
    ///   - isQuick: reads are answered first, and where holes are is known later.
    ///   - timeout: nanoseconds until a request fails; nil: it waits until it is answered.
    ///   - onChange: called on that thread. The first call tells what became of the first attempt: there is no second one, unless
    ///     the size is known.
    init(
        _ address: NBDAddress, known sizeBytes: UInt64?, isQuick: Bool, timeout: UInt64?, longestSilence: UInt64,
        onChange: @escaping @Sendable (ExportCondition) -> Void
    ) throws(Errno) {
        inbox = try ExportInbox()
        (self.address, self.timeout, self.onChange) = (address, timeout, onChange)
        (self.sizeBytes, self.longestSilence) = (sizeBytes, longestSilence)
        start = QuickStart(isQuick: isQuick)
        // Held by the thread until it has ended: see `end`.
        thread = try BackgroundThread { [self] in
            cs_name_thread("nbd-base")
            run()
        }
    }

    /// Ends the thread, and waits for that. Nothing is under way.
    func end() {
        inbox.wish { $0.isEnding = true }
        thread?.join()
        thread = nil
    }

    // MARK: - On its thread

    private var now: UInt64 { cs_monotonic_nanoseconds() }

    private func run() {
        do throws(Errno) { ring = try Ring.create(entries: 4, completionEntries: 8, setup: []) } catch {
            onChange(.failed(NBDFailure("this process gets no io_uring (\(error))")))
            return
        }
        defer { ring?.close() }
        while takeInbox() {
            connect()
            expire()
            hand()
            look()
            leave()
            wait()
        }
        connections = []
    }

    /// - Returns: false when the thread is to end.
    private func takeInbox() -> Bool {
        let (requests, wishes) = inbox.take()
        self.wishes = wishes
        for request in requests {
            if case .read(_, 0, _) = request.work {
                tell(request.answer, 0, [])
                continue
            }
            if case .read(let buffer, let byteCount, let offset) = request.work, !isOver, !wishes.isFailing,
                offset < beginning.count, byteCount <= beginning.count - Int(offset)
            {
                UnsafeMutableRawBufferPointer(start: buffer, count: byteCount).copyBytes(
                    from: beginning[Int(offset)..<Int(offset) + byteCount])
                tell(request.answer, Int32(byteCount), [])
                continue
            }
            pending[nextNumber] = PendingRequest(request: request, deadline: timeout.map { now &+ $0 })
            waiting.append(nextNumber)
            nextNumber += 1
            if hasBeenAwayTooLong { reconnection.hurry() }
        }
        return !wishes.isEnding
    }

    /// Parts with connections that make room, once they have answered.
    private func leave() { connections.removeAll { $0.makesRoom && $0.requests.isEmpty } }

    private func connect() {
        guard !isOver else { return }
        var isPlain = false
        if connections.isEmpty {
            guard reconnection.isDue(now: now) else { return }
            isPlain = start.nextIsPlain
        } else if start.step != .over {
            guard let dueAt = start.dueAt, dueAt <= now else { return }
            start.fullBegins()
        } else {
            // One that was refused is not asked for again at once: a server may have a limit of its own.
            guard let shape, shape.takesSeveralConnections, connections.count < ExportThread.mostConnections,
                reconnection.isDue(now: now),
                connections.allSatisfy({ $0.wasReady && $0.requests.count >= ExportThread.requestsForAnotherConnection })
            else { return }
        }
        do throws(NBDFailure) { connections.append(try NBDConnection(address, isPlain: isPlain, now: now)) } catch {
            return lost(error, isPlain: isPlain)
        }
        look()
    }

    /// A connection is gone, or there was none.
    private func lost(_ failure: NBDFailure, isPlain: Bool) {
        reconnection.failed(now: now)
        start.lost(isPlain: isPlain, plainIsThere: connections.contains { $0.isPlain })
        if start.makesRoom { for connection in connections { connection.makesRoom = true } }
        guard connections.isEmpty, !start.makesRoom else { return }
        if sizeBytes == nil {
            onChange(.failed(failure))
            isOver = true
        } else if !isAway {
            isAway = true
            beginning = []
            onChange(.away(failure))
        } else if hasBeenAwayTooLong {
            failAll()
        }
    }

    private func failAll() {
        precondition(connections.isEmpty, "requests of a connection")
        waiting = []
        for number in pending.keys { answer(number, -EIO) }
    }

    /// Fails the requests whose time is over, and gives up connections that say nothing.
    private func expire() {
        let now = now
        for connection in connections
        where (!connection.wasReady || !connection.requests.isEmpty) && now &- connection.lastProgress > patience(connection) {
            giveUp(
                connection, NBDFailure("the server has not answered for \(patience(connection) / 1_000_000_000) seconds"))
        }
        func isLate(_ request: PendingRequest) -> Bool { request.deadline.map { $0 <= now } == true }
        if isAway, !hasBeenAwayTooLong, connections.isEmpty, pending.values.contains(where: isLate) {
            hasBeenAwayTooLong = true
            failAll()
        }
        if wishes.isLeaving, !connections.contains(where: \.wasReady) {
            for number in waiting { answer(number, -ECANCELED) }
            waiting = []
        }
        for (number, request) in pending where isOver || wishes.isFailing || isLate(request) {
            if let connection = connections.first(where: { $0.requests.contains(number) }) {
                // Its buffer is in the connection's hands.
                giveUp(connection, NBDFailure("the server has not answered in time"))
            }
            waiting.removeAll { $0 == number }
            answer(number, -EIO)
        }
    }

    private func giveUp(_ connection: NBDConnection, _ failure: NBDFailure) {
        guard let index = connections.firstIndex(where: { $0 === connection }) else { return }
        waiting.insert(contentsOf: connection.requests.sorted(), at: 0)
        for number in connection.requests { pending[number]?.extents = [] }
        connection.requests = []
        connections.remove(at: index)
        lost(failure, isPlain: connection.isPlain)
    }

    /// Gives what waits to the connections.
    private func hand() {
        while let number = waiting.first {
            let ready = connections.filter {
                $0.wasReady && !$0.makesRoom && $0.requests.count < ExportThread.mostRequestsOfConnection
            }
            guard let connection = ready.min(by: { $0.requests.count < $1.requests.count }), let shape,
                let work = pending[number]?.next(in: shape)
            else { return }
            waiting.removeFirst()
            if connection.requests.isEmpty { connection.lastProgress = now }
            // Before: what can be answered at once is.
            connection.requests.insert(number)
            do throws(NBDFailure) {
                try connection.begin(
                    number, work,
                    found: { owner, number, offset, entries, count in
                        ExportThread.of(owner).found(number, offset, UnsafeBufferPointer(start: entries, count: count))
                    },
                    done: { owner, number, error in ExportThread.of(owner).done(number, error) },
                    owner: Unmanaged.passUnretained(self).toOpaque())
            } catch {
                guard connection.state == .ready else { return giveUp(connection, error) }
                // It takes no such request.
                connection.requests.remove(number)
                answer(number, -EIO)
            }
        }
    }

    /// SAFETY: `owner` is what `hand` gave: the thread holds itself as long as it runs, and callbacks come on it.
    private static func of(_ owner: UnsafeMutableRawPointer?) -> ExportThread {
        guard let owner else { preconditionFailure("a callback without its owner") }
        return Unmanaged<ExportThread>.fromOpaque(owner).takeUnretainedValue()
    }

    private func found(_ number: UInt64, _ offset: UInt64, _ entries: UnsafeBufferPointer<UInt32>) {
        guard var request = pending[number], offset == request.foundEnd else { return }
        request.take(entries)
        pending[number] = request
    }

    private func done(_ number: UInt64, _ error: Int32) {
        guard let connection = connections.first(where: { $0.requests.contains(number) }) else { return }
        // It has died with the request, or is about to: that is asked for again.
        guard error != ENOTCONN && error != ESHUTDOWN else {
            connection.isLeaving = true
            return
        }
        connection.requests.remove(number)
        connection.lastProgress = now
        start.answered(now: now)
        if error == 0, pending[number]?.takePart() == true { return waiting.insert(number, at: 0) }
        answer(number, -error)
    }

    private func answer(_ number: UInt64, _ result: Int32) {
        guard let request = pending.removeValue(forKey: number) else { return }
        request.part.bounce?.address.deallocate()
        if result == 0, case .read(let buffer, let byteCount, let offset) = request.request.work {
            if offset == 0, byteCount == ExportThread.beginningBytes {
                beginning = Array(UnsafeRawBufferPointer(start: buffer, count: byteCount))
            }
            tell(request.request.answer, Int32(byteCount), [])
        } else {
            tell(request.request.answer, result, request.extents)
        }
    }

    private func tell(_ answer: ExportRequest.Answer, _ result: Int32, _ extents: [ExportExtent]) {
        switch answer {
        case .completion(let token, let address): ring?.complete(token, result, at: address)
        case .call(let call): call(result, extents)
        }
    }

    /// Waits until a connection, a time or somebody else wants something.
    private func wait() {
        var descriptors = [pollfd(fd: inbox.descriptor, events: Int16(POLLIN), revents: 0)]
        for connection in connections {
            descriptors.append(pollfd(fd: connection.descriptor, events: connection.events, revents: 0))
        }
        let count = poll(&descriptors, nfds_t(descriptors.count), pauseMilliseconds)
        guard count > 0 else { return }
        if descriptors[0].revents != 0 { inbox.hear() }
        for (connection, descriptor) in zip(connections, descriptors.dropFirst()) where descriptor.revents != 0 {
            connection.lastProgress = now
            connection.notify(descriptor.revents)
            look(at: connection)
        }
    }

    /// For what has become of connections without poll's telling: a server may have answered everything while libnbd connected,
    /// and in a handshake of TLS libnbd waits for it.
    private func look() {
        for connection in connections { look(at: connection) }
    }

    private func look(at connection: NBDConnection) {
        guard connections.contains(where: { $0 === connection }) else { return }
        switch connection.state {
        case .dead: giveUp(connection, .lastOfThread)
        // Its server says that it ends.
        case _ where connection.isLeaving: giveUp(connection, .lastOfThread)
        case .ready: if !connection.wasReady { becameReady(connection) }
        case .connecting: break
        }
    }

    private func becameReady(_ connection: NBDConnection) {
        let found = connection.shape
        guard found.isSensible else {
            return giveUp(connection, NBDFailure("the server wants blocks of \(found.smallestBlockBytes) bytes"))
        }
        if let sizeBytes, found.sizeBytes != sizeBytes {
            isOver = true
            connections = []
            for number in pending.keys where !waiting.contains(number) { waiting.append(number) }
            onChange(.another(sizeBytes: found.sizeBytes))
            return
        }
        connection.wasReady = true
        reconnection.succeeded()
        if connection.isPlain { start.plainIsReady(now: now) } else { fullIsReady(found) }
        if shape == nil {
            (shape, sizeBytes) = (found, found.sizeBytes)
            (isAway, hasBeenAwayTooLong) = (false, false)
            onChange(.opened(found))
        } else if isAway {
            (isAway, hasBeenAwayTooLong) = (false, false)
            onChange(.back)
        }
    }

    /// From now on all connections are like this one.
    private func fullIsReady(_ found: ExportShape) {
        start.fullIsReady()
        for connection in connections where connection.isPlain { connection.makesRoom = true }
        guard let shape, !shape.tellsExtents, found.tellsExtents else { return }
        self.shape = found
        onChange(.tellsExtents)
    }

    /// So long a connection may say nothing.
    private func patience(_ connection: NBDConnection) -> UInt64 {
        if connection.isPlain || connection.wasReady { return longestSilence }
        return start.patience(longestSilence, takesSeveralConnections: shape?.takesSeveralConnections == true)
    }

    /// Until the next time at which something is to be done; -1: there is none.
    private var pauseMilliseconds: Int32 {
        var due = pending.values.compactMap(\.deadline).min()
        func at(_ time: UInt64) { due = min(due ?? time, time) }
        if connections.isEmpty, !isOver { at(reconnection.dueAt) }
        for connection in connections where !connection.wasReady || !connection.requests.isEmpty {
            at(connection.lastProgress + patience(connection))
        }
        if let dueAt = start.dueAt, !isOver { at(dueAt) }
        guard let due else { return -1 }
        return due <= now ? 0 : Int32(clamping: (due - now) / 1_000_000 + 1)
    }
}
