import CSupport
import Glibc
import Logging
import Platform
import SystemPackage
import Ublk

/// Taking away the disk of a device that is served.
final class DiskWithdrawal: Sendable {
    let info: UblkDeviceInfo
    private let control: UblkControlDevice
    private let log: Logger
    /// What of its users' data was lost when the disk was taken away by force: sentences, of which the first will do.
    private let unwritten = Lock<[String]>([])

    var path: String { UblkPaths.blockDevice(info.id) }

    init(of info: UblkDeviceInfo, _ control: UblkControlDevice, log: Logger) {
        self.info = info
        self.control = control
        self.log = log
    }

    /// With `force` even when it is in use.
    /// - Parameters:
    ///   - timeoutSeconds: how long, with `force`, what its users have not written yet may take to be written.
    ///   - onceWritten: called, with `force`, when that is over. The kernel waits for all requests that are under way.
    /// - Returns: who uses it, when nothing was done for that reason; nil when it is gone.
    func stop(
        force: Bool, timeoutSeconds: Int = ControlRequest.defaultStopTimeoutSeconds, onceWritten: () -> Void = {}
    ) throws(ServerError) -> DiskUse? {
        if force {
            writeBack(timeoutSeconds: timeoutSeconds)
            onceWritten()
            do { try control.stopDevice(info.id, timeout: UblkControlDevice.stopTimeout) } catch { throw .control(error) }
            return nil
        }
        var use: DiskUse?
        // udev looks at a disk for a moment whenever somebody who has written to it closes it.
        let end = ContinuousClock.now + .seconds(5)
        for _ in 0..<20 {
            use = try stopUnused()
            guard use?.mayPass == true, ContinuousClock.now < end else { break }
            usleep(100_000)
        }
        return use
    }

    /// Has everything that the disk's users have not written yet written back before the disk is stopped: with recovery the
    /// kernel answers whatever it writes after that with an error (`ublk_force_abort_dev`, Linux 6.12 to 7).
    private func writeBack(timeoutSeconds: Int) {
        let path = path
        let done = cs_eventfd()
        guard done >= 0 else { return noteUnwritten("\(path) cannot be written back: \(Errno(rawValue: -done))") }
        let thread: BackgroundThread
        do {
            thread = try BackgroundThread { [self] in
                for sentence in OwnDiskProcess.write(.writeBack, ofDiskAt: path) { noteUnwritten(sentence) }
                cs_eventfd_signal(done)
            }
        } catch {
            close(done)
            return noteUnwritten("\(path) cannot be written back: \(error)")
        }
        var polled = pollfd(fd: done, events: Int16(POLLIN), revents: 0)
        if poll(&polled, 1, Int32(clamping: timeoutSeconds * 1000)) > 0 {
            thread.join()
            close(done)
        } else {
            // It ends when the disk goes, and signals then: the descriptor stays.
            noteUnwritten("\(path) was not written back within \(timeoutSeconds) seconds")
            thread.detach()
        }
    }

    private func noteUnwritten(_ sentence: String) {
        log.warning("\(sentence)")
        unwritten.withLock { $0.append(sentence) }
    }

    /// Takes the disk away unless anybody uses it.
    private func stopUnused() throws(ServerError) -> DiskUse? {
        let hold: DiskHold
        do throws(DiskUse) {
            // Where the kernel counts who has it open, it is asked in the end.
            hold = try DiskHold(ofDiskAt: path, looksForUsers: !info.features.contains(.safeStop))
        } catch { return error }
        // What is dirty in the page cache of the disk: STOP itself may or may not write it back. Nothing, nearly always.
        if hold.descriptor >= 0, cs_has_dirty_pages(hold.descriptor) != 0 {
            _ = OwnDiskProcess.write(.flush, ofDiskAt: path)
        }
        do { return try control.stopUnused(info, hold) } catch { throw .control(error) }
    }

    /// What is left of a device that is gone.
    struct Remains: Equatable {
        /// Somebody has it open, and so its number is taken.
        var number: Bool
        /// Of what its users had written something is lost, and why.
        var unwritten: String?
    }

    /// Deletes the device: its disk is gone, and nobody serves it any more.
    func forgetDevice() throws(ServerError) -> Remains {
        do throws(UblkControlError) {
            return Remains(number: try !control.forgetDevice(info.id), unwritten: unwritten.withLock { $0.first })
        } catch { throw .control(error) }
    }
}
