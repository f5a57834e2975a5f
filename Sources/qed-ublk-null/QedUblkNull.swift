import ArgumentParser
import CSupport
import Glibc
import Ublk

/// Serves a disk that keeps nothing: what a device can do at most, and the shortest way from a target to a device.
@main
struct QedUblkNull: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qed-ublk-null",
        abstract: "Serve a disk that takes everything and keeps nothing, until SIGTERM or SIGINT; its name is printed.",
        discussion: """
            Whatever a program gets out of it is what the driver and the queue's loop allow: a target's own work comes on top.
            """)

    @Option(name: .shortAndLong, help: "Hardware queues; no more than there are processors.")
    var queues = 1

    @Option(name: .shortAndLong, help: "Requests under way at once in each queue.")
    var depth = 128

    @Option(help: "The disk's size, in MiB.")
    var mebibytes = 1024

    /// How long the kernel may take: it looks for partitions, and waits for requests.
    private static let timeout = Duration.seconds(30)

    func run() throws {
        let signals = cs_open_signals()
        guard signals >= 0, cs_block_signals() == 0 else { throw ExitCode.failure }
        let control = try UblkControlDevice()
        let info = try control.addDevice(queues: queues, queueDepth: depth, maxIOSizeBytes: 128 << 10, features: [])
        // The character device is closed by then, or the kernel would wait for that.
        defer { try? control.deleteDevice(info.id, timeout: Self.timeout) }
        let device = try UblkCharacterDevice.open(id: info.id)
        defer { device.close() }
        try control.setParameters(
            UblkParameters(
                basic: UblkParameters.Basic(
                    attributes: [], maxSectors: UInt32(info.maxIOSizeBytes / 512), deviceSectors: UInt64(mebibytes) << 11)),
            of: info)
        let queues = try (0..<info.queueCount).map { try ServedQueue(device, info, number: $0) }
        for queue in queues {
            if let failure = queue.ready.wait(timeout: Self.timeout) ?? "it takes long" {
                throw ValidationError("queue \(queue.number) cannot be served: \(failure)")
            }
        }
        try control.startDevice(info.id, serverProcess: getpid(), timeout: Self.timeout)
        let name = Array("\(UblkPaths.blockDevice(info.id))\n".utf8)
        guard write(STDOUT_FILENO, name, name.count) == name.count else { throw ExitCode.failure }

        var polled = pollfd(fd: signals, events: Int16(POLLIN), revents: 0)
        while poll(&polled, 1, -1) < 0 {}
        // Requests that wait for one come back aborted, and the loops end.
        try control.stopDevice(info.id, timeout: Self.timeout)
        for queue in queues { queue.join() }
    }
}

/// A queue with the thread that sets it up and serves it.
private struct ServedQueue {
    let number: Int
    /// Why it cannot be served; nil: it is.
    let ready = Answer<String?>()
    private let thread: DriverThread

    init(_ device: UblkCharacterDevice, _ info: UblkDeviceInfo, number: Int) throws {
        self.number = number
        thread = try DriverThread(device: device, info: info, queue: number) { [ready] open in
            do {
                let ring = try open()
                ready.give(nil)
                _ = QueueLoop(ring: ring, target: NullTarget(), mailbox: QueueMailbox()).run()
            } catch {
                ready.give("\(error)")
            }
        }
    }

    func join() { thread.join() }
}
