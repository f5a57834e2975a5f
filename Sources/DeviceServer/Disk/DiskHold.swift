import CSupport
import Glibc
import SystemPackage

/// A disk that nobody uses, had exclusively for as long as this is kept: nobody can mount it, or a partition of it, meanwhile.
/// To open it, or to put a loop device on it, nobody can be kept from.
final class DiskHold {
    /// Negative: there is no disk, or it is not held any more.
    private(set) var descriptor: Int32

    /// Opening waits, in the kernel and without end, for whoever reads the disk's partition table, who may wait for a server:
    /// that is a process's work. Nearly always it is done at once; after that it is looked for who keeps it from it.
    private static let usualTime = Duration.seconds(1)
    private static let timeout = Duration.seconds(10)

    /// Without a disk there is nothing to hold.
    /// - Parameter looksForUsers: also for those who have it open without exclusion.
    /// - Throws: who uses it, or that nobody knows.
    init(ofDiskAt path: String, looksForUsers: Bool = true) throws(DiskUse) {
        descriptor = -1
        let process: OwnDiskProcess
        do throws(Errno) { process = try OwnDiskProcess(.hold, ofDiskAt: path) } catch {
            throw DiskUse(path: path, user: .unknown("nobody can be asked to open it (\(error)); try again"))
        }
        do throws(DiskUse) { try DiskHold.waitForReport(of: process, ofDiskAt: path) } catch {
            process.giveUp()
            throw error
        }
        do throws(Errno) { descriptor = try process.openFile() } catch .resourceBusy { throw .claimed(path) } catch {
            // There is none, or none any more.
            guard [.noSuchFileOrDirectory, .noSuchAddressOrDevice, .operationNotSupportedByDevice].contains(error) else {
                throw DiskUse(path: path, user: .unknown("it cannot be opened (\(error)); try again"))
            }
        }
        if looksForUsers, let use = DiskUse.found(ofDiskAt: path) {
            release()
            throw use
        }
    }

    /// Waits until a process that is to open the disk exclusively has said something of it.
    /// - Throws: who keeps it from it, perhaps.
    static func waitForReport(of process: OwnDiskProcess, ofDiskAt path: String) throws(DiskUse) {
        guard
            process.hasReported(within: DiskHold.usualTime)
                || DiskUse.found(ofDiskAt: path) == nil && process.hasReported(within: DiskHold.timeout)
        else { throw DiskUse.found(ofDiskAt: path) ?? .beingRead(path) }
    }

    /// The process: opens the disk, and hands it over.
    static func handOver(diskAt path: String, to socket: Int32) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_EXCL | O_NONBLOCK)
        _ = cs_send_open_file(socket, descriptor < 0 ? errno : 0, descriptor)
    }

    deinit { release() }

    func release() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }
}
