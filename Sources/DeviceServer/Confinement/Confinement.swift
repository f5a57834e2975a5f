import CConfinement
import Glibc
import Platform
import SystemPackage

/// A server that gives up what it may do before it reads the tables of an image that somebody else has made: whoever finds a
/// hole in it finds a process that can do nothing but read and write the files of that image. What still takes rights a broker
/// does for it (`Broker`).
///
/// In this order: the process becomes nobody's, which takes every capability from all its threads, and looks whether it did; each
/// thread leaves all file systems (Landlock; those of queues have left them when they began); and then only the system calls of
/// serving are left (seccomp, which with io_uring means those of its rings: see `Ring.create`). None of it can be taken back.
enum Confinement {
    /// For a thread of a queue, when it begins: Landlock is each thread's own. Where the kernel has none (before 5.13, or not
    /// switched on) the rest holds all the same.
    static func confineThread() { _ = cc_leave_file_systems() }

    /// For developers, with QED_UBLK_CONFINEMENT=log: system calls that are not on the list are told to the kernel's log (dmesg,
    /// "type=1326"), and carried out.
    private static var onlyLogs: Bool { getenv("QED_UBLK_CONFINEMENT").map { String(cString: $0) } == "log" }

    private static let entered = Lock(false)

    /// Whether the process has begun to give up what it may do.
    static var isEntered: Bool { entered.withLock { $0 } }

    /// For the process, before there is anything of a device, and a second thread.
    /// - Throws: where it could not give up what it may do.
    static func prepare() throws(ServerError) {
        guard cc_may_become_nobody() == 1 else { throw .mayNotBeConfined }
        let result = cc_inherit_nothing()
        guard result == 0 else { throw .notConfined("it cannot give up capabilities", Errno(rawValue: -result)) }
    }

    /// For the process, which is prepared. All files that it will need are open.
    static func enter() throws(ServerError) {
        entered.withLock { $0 = true }
        let result = cc_become_nobody()
        guard result == 0 else { throw .notConfined("it cannot become nobody's", Errno(rawValue: -result)) }
        if let name = ThreadCapabilities.threadWithSome() {
            throw .notConfined("its thread \(name.printable) has kept capabilities", .notPermitted)
        }
        confineThread()
        let filtered = cc_allow_only_serving(onlyLogs ? 1 : 0)
        guard filtered == 0 else { throw .notConfined("no filter of system calls", Errno(rawValue: -filtered)) }
    }
}
