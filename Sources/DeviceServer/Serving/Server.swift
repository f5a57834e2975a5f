import BlockStorage
import CSupport
import Glibc
import Logging
import Platform
import QEDChain
import QEDEngine
import SystemPackage
import Ublk

/// How a server ends.
public enum ServerEnding: Sendable {
    /// Its device is gone.
    case removed
    /// Its device is in use, and waits for the next server.
    case left
}

/// The process that serves one device: makes it, answers its control socket and signals, and takes it away again.
///
/// The queues' threads serve; this, the main thread, waits for signals, requests on the control socket and the end of a
/// queue.
final class Server {
    let configuration: ServerConfiguration
    let log: Logger
    let registry = DeviceRegistry()
    let process: ServerProcess
    private var signals: Int32 { process.signals }
    /// See `ImageSession.endsRollback`. Nobody waits for it.
    private var pageDrop: BackgroundThread?
    /// They write what the record says since then.
    private var notes: [BackgroundThread?] = []

    init(_ configuration: ServerConfiguration, process: ServerProcess, log: Logger) {
        self.configuration = configuration
        self.process = process
        self.log = log
    }

    /// Serves until it is told to stop.
    /// - Parameters:
    ///   - made: called once, with the device's number, when it is there, and this process has all its rights yet.
    ///   - ready: called once, with the device's number and path, when it is usable. False: nobody wants it any more, so it
    ///     is taken away again.
    ///   - gone: called when the device is gone, before anybody is told.
    /// - Throws: why the device could not be made, or not be taken away properly.
    func run(
        made: (UInt32) -> Void = { _ in }, ready: (UInt32, String) -> Bool, gone: @escaping () -> Void = {}
    ) throws(ServerError) -> ServerEnding {
        var (device, record, socket) = try makeDevice(made, gone)
        // What opening the image took is free again, and the machine's.
        cs_return_free_memory()
        for warning in process.warnings { log.warning("\(warning)") }
        if let warning = device.session.warning { log.warning("\(warning)") }
        log.info("serving \(configuration.imagePath) as \(device.blockDevicePath)")
        if let blocks = device.session.blocks { log.info("\(blocks)") }
        if device.session.endsRollback {
            let path = device.blockDevicePath
            pageDrop = try? BackgroundThread { _ = OwnDiskProcess.write(.forget, ofDiskAt: path) }
        }
        var reason = Reason.stopped(request: nil)
        // A device that is in use wants to be served, whoever asked for that.
        if ready(device.info.id, device.blockDevicePath) || configuration.recovers {
            reason = serve(device, socket, &record)
        } else {
            log.warning("nobody waits for \(device.blockDevicePath) any more")
            device.startFiles?.abandon()
            _ = try? device.stop(force: true)
        }
        switch reason {
        case .stopped(let request):
            try remove(device, socket, record, request, gone)
            return .removed
        case .left(let use):
            try leave(device, socket, record, use)
            return .left
        }
    }

    /// Why `serve` ended.
    private enum Reason {
        /// The disk is gone; the control request, if there was one, is to be answered when everything is done.
        case stopped(request: ControlSocketServer.ConnectionID?)
        /// The disk is in use, and waits for the next server.
        case left(DiskUse?)
    }

    func remove(
        _ device: ServedDevice, _ socket: ControlSocketServer, _ record: DeviceRecord,
        _ request: ControlSocketServer.ConnectionID?, _ gone: () -> Void
    ) throws(ServerError) {
        // Once the device is deleted its number, and with it the names of these, can be another server's.
        socket.stopListening()
        var failure: ServerError?
        do { try device.remove() } catch { failure = error }
        if !device.rights.isConfined {
            try? registry.remove(record)
            if failure == nil { gone() }
        }
        if let request {
            socket.reply(to: request, failure.map { .failure(.failed, "\($0)") } ?? .success(.null))
        }
        socket.close()
        if let failure { throw failure }
        log.info("\(device.blockDevicePath) is gone")
    }

    func leave(
        _ device: ServedDevice, _ socket: ControlSocketServer, _ record: DeviceRecord, _ use: DiskUse?
    ) throws(ServerError) {
        socket.leave()
        // The last words: once the queues have ended, the file that the log goes to may lie on the waiting disk.
        let reason = use.map { ": \($0)" } ?? ""
        log.notice("\(device.blockDevicePath) waits for a server (qed-ublk recover \(device.info.id))\(reason)")
        let own = device.session.updated(record)
        try device.rights.note(.left(try device.leave()), own: own)
    }

    /// Waits for a reason to end, and stops the device unless it is to be left.
    private func serve(_ device: ServedDevice, _ socket: ControlSocketServer, _ record: inout DeviceRecord) -> Reason {
        var stop = DiskStopping(isLazy: record.goesWhenUnused)
        var attempt: StopAttempt?
        let live = LiveDevice(
            session: device.session, queues: device.queues, record: record, cacheBytes: configuration.cacheBytes,
            keepsReads: configuration.keepsReads, keepLimitBytes: configuration.keepLimitBytes,
            recorder: device.startFiles?.recorder, policy: configuration.backing,
            registry: registry, rights: device.rights, log: log)
        let replies = DeviceReplies(of: device, live: live)
        device.startFiles?.begin(live, log: log)
        let bound = KeptBound(live, log: log)
        let ownMounts = watchOwnMounts(device)
        defer {
            ownMounts?.end()
            for note in notes { note?.join() }
            device.startFiles?.end()
            bound?.end()
            for (request, reply) in replies.abandon() { socket.reply(to: request, reply) }
        }
        if stop.isLazy { attempt = self.stop(device, stop.next()) }
        // Nothing in this loop blocks: what may wait for a disk, a process or a lock of the kernel has a thread of its own.
        while true {
            var polled = [
                // One that comes while somebody else's request is at work is not lost.
                pollfd(fd: attempt?.request == nil ? signals : -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0),
                pollfd(fd: device.queuesChanged, events: Int16(POLLIN), revents: 0),
                // Negative: not looked at.
                pollfd(fd: attempt?.finished ?? -1, events: Int16(POLLIN), revents: 0),
            ]
            // Named once: what is asked for below opens others.
            let finished = replies.finished
            polled += finished.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            if poll(&polled, nfds_t(polled.count), -1) < 0 {
                guard errno == EINTR else { return .stopped(request: nil) }
                continue
            }

            let readable = polled.suffix(finished.count).filter { $0.revents != 0 }.map(\.fd)
            for (request, reply) in replies.takeAnswers(readable) { socket.reply(to: request, reply) }
            if polled[3].revents != 0, let ended = attempt {
                attempt = nil
                let use: DiskUse
                switch ended.takeOutcome() {
                case .stopped, nil: return .stopped(request: ended.request)
                case .used(let found): use = found
                case .failed(let error):
                    if device.haveAllQueuesEnded { return .stopped(request: ended.request) }
                    // The disk is still there, and so is the server; what was begun may yet come about.
                    log.error("\(device.blockDevicePath) was not removed: \(error)")
                    if let request = ended.request {
                        socket.reply(to: request, .failure(.failed, "\(error); it is still served, so try again"))
                    }
                    if device.hasEndedQueue {
                        attempt = self.stop(device, .init(force: true, afterMilliseconds: 1000))
                    } else if stop.isDraining {
                        attempt = self.stop(device, stop.next(afterFailure: true))
                    }
                    continue
                }
                if let request = ended.request {
                    guard ended.isLazy else {
                        socket.reply(to: request, .failure(.busy, "\(use), or use --force"))
                        if stop.isLazy { attempt = self.stop(device, stop.next()) }
                        continue
                    }
                    log.notice("\(use); the disk goes when nobody uses it any more")
                    stop.becomeLazy()
                    note(.goesWhenUnused, in: &record, device)
                    socket.reply(to: request, .success(["in-use": .string("\(use)")]))
                } else if stop.awaitsMachine || ended.machineGoesDown {
                    if !stop.awaitsMachine {
                        log.notice("\(use); the machine is going down, and the disk is served until nobody uses it any more")
                        MachineShutdown.stayToTheEnd()
                    }
                    stop.awaitMachine()
                } else if ended.asksMachine {
                    if device.isRecoverable {
                        device.beginLeaving()
                        return .left(use)
                    }
                    log.warning("\(use), or send the signal again to stop all the same")
                    stop.forceNextSignal()
                }
                if stop.isDraining { attempt = self.stop(device, stop.next()) }
            }
            if polled[2].revents != 0 {
                cs_eventfd_wait(device.queuesChanged)
                noteFailure(device, &record)
                if device.hasEndedQueue && attempt == nil {
                    log.warning("\(device.blockDevicePath) was stopped from outside")
                    attempt = self.stop(device, .init(force: true))
                    if attempt == nil { return .stopped(request: nil) }
                }
            }
            if polled[0].revents != 0, let name = takeSignal(), attempt == nil || stop.isLazy {
                log.info("\(name): stopping \(device.blockDevicePath)")
                stop.noteSignal()
                if attempt == nil { attempt = self.stop(device, stop.next()) }
            }
            if polled[1].revents != 0 {
                for arrival in socket.acceptRequests() {
                    if arrival.request == .leave {
                        guard let refusal = refusalToLeave(device, attempt) else {
                            socket.reply(to: arrival.connection, .success(.null))
                            device.beginLeaving()
                            return .left(nil)
                        }
                        socket.reply(to: arrival.connection, refusal)
                        continue
                    }
                    let isLeaving = attempt.map { $0.request == nil && !stop.awaitsMachine } ?? false
                    answer(arrival, device, socket, replies, &attempt, &stop, isLeaving: isLeaving)
                }
            }
        }
    }

    /// Says once that a sync has failed, in the log and for `list`.
    private func noteFailure(_ device: ServedDevice, _ record: inout DeviceRecord) {
        guard let errno = device.session.image.failedSync, !record.hasFailed else { return }
        let remedy =
            device.isRecoverable
            ? "kill \(getpid()), and 'qed-ublk recover \(device.info.id)'" : "remove the device and add the image again"
        log.error(
            """
            \(device.session.path): a sync failed (\(errno)), and what was written before it may be lost; writes and \
            flushes are refused until the image is opened again: when the disk works, \(remedy)
            """)
        note(.failed, in: &record, device)
    }

    /// Changes what the record says. Nothing waits for that.
    private func note(_ note: DeviceNote, in record: inout DeviceRecord, _ device: ServedDevice) {
        note.apply(to: &record)
        let (rights, log, own) = (device.rights, self.log, device.session.updated(record))
        notes.append(
            try? BackgroundThread {
                do { try rights.note(note, own: own) } catch { log.warning("\(error)") }
            })
    }

    private func watchOwnMounts(_ device: ServedDevice) -> OwnDiskMounts? {
        // Those of a confined server are its broker's business.
        guard process.hasOwnMounts, !device.rights.isConfined else { return nil }
        do { return try OwnDiskMounts(ofDisk: device.blockDevicePath) } catch {
            log.warning("mounts of \(device.blockDevicePath) stay in the server's namespace: \(error)")
            return nil
        }
    }

    private func refusalToLeave(_ device: ServedDevice, _ attempt: StopAttempt?) -> ControlReply? {
        guard device.isRecoverable else {
            return .failure(.unavailable, "\(device.blockDevicePath) was added with --no-recovery, and would go with its server")
        }
        return attempt.map { .failure(.busy, "\(device.blockDevicePath) \($0.description)") }
    }

    private func answer(
        _ arrival: ControlSocketServer.Arrival, _ device: ServedDevice, _ socket: ControlSocketServer,
        _ replies: DeviceReplies, _ attempt: inout StopAttempt?, _ stop: inout DiskStopping,
        isLeaving: Bool
    ) {
        switch arrival.request {
        case .status:
            let status = device.status(
                path: device.session.path, isReadOnly: configuration.isReadOnly, isLeaving: isLeaving, merge: replies.merge)
            socket.reply(to: arrival.connection, .success(status))
        case .stats, .flush, .quiesce, .commitChange:
            if let reply = replies.ask(arrival.request, arrival.connection) { socket.reply(to: arrival.connection, reply) }
        case .snapshot, .rollback, .commit, .flatten, .resize, .warm, .verify:
            if isLeaving || attempt != nil {
                socket.reply(to: arrival.connection, .failure(.busy, "\(device.blockDevicePath) is about to go"))
            } else if let reply = replies.ask(arrival.request, arrival.connection) {
                socket.reply(to: arrival.connection, reply)
            }
        case .leave: preconditionFailure("not answered here")
        case .stop, .stopWhenUnused:
            var wanted = DiskStopping.Attempt(request: arrival.connection)
            if case .stop(let force, let timeoutSeconds) = arrival.request {
                (wanted.force, wanted.timeoutSeconds) = (force, timeoutSeconds)
            } else {
                wanted.isLazy = true
            }
            if let attempt {
                // One that only looks whether its time has come is not waited for.
                if attempt.request == nil, stop.isLazy, stop.noteRequest(wanted) { return }
                let sentence = "\(device.blockDevicePath) \(attempt.description)"
                socket.reply(to: arrival.connection, .failure(.busy, sentence))
            } else {
                attempt = self.stop(device, wanted)
                if attempt == nil {
                    socket.reply(to: arrival.connection, .failure(.failed, "the server has no thread to stop it with"))
                }
            }
        }
    }

    private func stop(_ device: ServedDevice, _ wanted: DiskStopping.Attempt) -> StopAttempt? {
        let rights = device.rights
        return StopAttempt(
            request: wanted.request, isLazy: wanted.isLazy, asksMachine: wanted.isOfSignal ? { rights.isMachineGoingDown() } : nil
        ) { () throws(ServerError) in
            cs_sleep_milliseconds(wanted.afterMilliseconds)
            return try device.stop(force: wanted.force, timeoutSeconds: wanted.timeoutSeconds)
        }
    }

    private func takeSignal() -> String? {
        switch cs_take_signal(signals) {
        case SIGTERM: "SIGTERM"
        case SIGINT: "SIGINT"
        case SIGHUP: "SIGHUP"
        default: nil
        }
    }
}
