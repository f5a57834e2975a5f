import CSupport
import Glibc
import SystemPackage

/// A disk whose content is about to be another: had exclusively, so that nobody has something of it in memory, and without
/// pages of the old content in the kernel's caches, before and after.
///
/// One process does all of that (`OwnDiskProcess`). Where the server dies meanwhile it goes on as if it had been told: then the
/// pages are forgotten once the next server serves.
final class DiskExchange {
    private let process: OwnDiskProcess
    private let path: String

    private static let timeout = Duration.seconds(10)
    /// Somebody may look at the disk for a moment, as udev does after each of its users.
    private static let passingUse = Duration.seconds(5)

    /// Waits until the disk is had, not for its pages.
    /// - Parameter force: also where it is in use; then it is not had exclusively.
    /// - Throws: who uses it, or that nobody knows.
    init(ofDiskAt path: String, force: Bool) throws(DiskUse) {
        self.path = path
        do throws(Errno) { process = try OwnDiskProcess(force ? .exchangeInUse : .exchange, ofDiskAt: path) } catch {
            throw DiskUse(path: path, user: .unknown("nobody can be asked to open it (\(error)); try again"))
        }
        do throws(DiskUse) {
            try DiskHold.waitForReport(of: process, ofDiskAt: path)
            let errno = process.nextLine().flatMap { Int32($0) }.map { Errno(rawValue: $0) } ?? .ioError
            switch errno {
            case Errno(rawValue: 0): break
            case .resourceBusy: throw .claimed(path)
            default: throw DiskUse(path: path, user: .unknown("it cannot be opened (\(errno)); try again"))
            }
            if !force { try waitForPassingUse() }
        } catch {
            process.finish(within: .seconds(1))
            throw error
        }
    }

    private func waitForPassingUse() throws(DiskUse) {
        let end = ContinuousClock.now + Self.passingUse
        while let use = DiskUse.found(ofDiskAt: path, besides: process.process) {
            guard use.mayPass, ContinuousClock.now < end else { throw use }
            cs_sleep_milliseconds(50)
        }
    }

    /// Waits until what was dirty is written and no page is left, however long that takes.
    /// - Returns: what could not be written, in a sentence.
    func forgetPages() -> String? {
        var failure: String?
        while let line = process.nextLine() {
            if line == DiskExchange.endOfReport { return failure }
            failure = failure ?? line
        }
        return failure ?? "the process that was to write back \(path) has ended"
    }

    /// The content is another by now, or stays: pages that somebody has read meanwhile are forgotten, the partition table is read
    /// again, and the disk is anybody's. Waits for that, unless it takes long.
    func end() { process.finish(within: Self.timeout) }

    // MARK: - The process

    private static let endOfReport = "."

    /// - Parameter socket: the server's. What is said there: the errno of opening the disk, then what could not be written, and
    ///   when that has been done.
    static func run(ofDiskAt path: String, isExclusive: Bool, _ socket: Int32) {
        func say(_ line: String) { _ = try? FileDescriptor(rawValue: socket).writeAll("\(line.filter { !$0.isNewline })\n".utf8) }
        let disk = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (isExclusive ? O_EXCL : 0))
        say("\(disk < 0 ? errno : 0)")
        guard disk >= 0 else { return }
        WriteBack.flushDisk(at: path, forgets: true, report: say)
        say(endOfReport)
        var byte: UInt8 = 0
        while read(socket, &byte, 1) < 0 && errno == EINTR {}
        WriteBack.flushDisk(at: path, forgets: true) { _ in }
        DiskNodes.readPartitions(of: disk)
        close(disk)
    }
}
