import CSupport
import Glibc
import IOURing
import Platform
import SystemPackage

/// One control command as the driver receives it.
struct ControlCommand {
    var code: UblkCommand
    /// `CS_UBLK_ANY_DEVICE` where the driver chooses or none is meant.
    var deviceID: UInt32
    /// The one number that some commands take: a process id, a queue, a size in sectors, milliseconds.
    var argument: UInt64 = 0
    /// What the driver reads or fills.
    var buffer: ControlBuffer?
}

/// How a control command ended.
enum ControlOutcome: Equatable {
    /// The driver's result: 0 or more, or a negative errno.
    case completed(Int32)
    /// The deadline passed and the driver could not be made to let go of the command; it may end at any later time.
    case abandoned
    /// The deadline passed, and the driver has let go of the command without doing it.
    case cancelled
}

/// The way to the driver. Tests put a driver of their own behind it.
protocol ControlChannel: AnyObject {
    func execute(_ command: ControlCommand, timeout: Duration) -> ControlOutcome
}

/// Memory that the kernel reads and writes while a command runs.
final class ControlBuffer {
    let bytes: UnsafeMutableRawBufferPointer

    /// Zeroed.
    init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 8)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Holds a copy of a structure of the driver's interface.
    convenience init<Structure: BitwiseCopyable>(_ structure: Structure) {
        self.init(byteCount: MemoryLayout<Structure>.size)
        bytes.storeBytes(of: structure, as: Structure.self)
    }

    deinit { bytes.deallocate() }

    func load<Structure: BitwiseCopyable>(as type: Structure.Type) -> Structure { bytes.loadUnaligned(as: type) }

    /// Never frees the memory.
    ///
    /// SAFETY: called when the kernel may still write to it at any later time; a leak of some bytes is the only safe
    /// answer.
    func leak() { _ = Unmanaged.passRetained(self) }
}

/// Control commands as io_uring commands on /dev/ublk-control.
final class RingControlChannel: ControlChannel {
    private let descriptor: Int32
    private let ring: Ring
    private var lastNumber: UInt32 = 0

    /// Commands that should be cancelled get this long to end.
    private static let cancellationTime = Duration.seconds(1)
    private static let commandKind: UInt8 = 0
    private static let cancellationKind: UInt8 = 1

    /// Takes over the descriptor, also when it throws.
    /// - Throws: the errno of `io_uring_setup`.
    init(descriptor: Int32) throws(Errno) {
        do {
            ring = try Ring.create(entries: 32, completionEntries: 64, setup: .wideSubmissions)
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    deinit {
        ring.close()
        Glibc.close(descriptor)
    }

    func execute(_ command: ControlCommand, timeout: Duration) -> ControlOutcome {
        let outcome = run(timeout: timeout) { sqe, token in
            cs_prep_uring_cmd(sqe, descriptor, command.code.opcode, token.rawValue)
            // SAFETY: the ring has 128-byte submissions, so 80 bytes follow byte 48; what an earlier use left there
            // goes.
            let payload = UnsafeMutableRawPointer(cs_sqe_command(sqe))
            payload?.initializeMemory(as: UInt8.self, repeating: 0, count: 80)
            payload?.storeBytes(of: command.header, as: cs_ublk_control_command.self)
        }
        if outcome == .abandoned { command.buffer?.leak() }
        return outcome
    }

    /// Submits one operation and waits for its completion, at most until the timeout and a short time for cancelling
    /// it.
    func run(
        timeout: Duration, prepare: (UnsafeMutablePointer<cs_io_uring_sqe>, CompletionToken) -> Void
    ) -> ControlOutcome {
        lastNumber &+= 1
        let token = CompletionToken(kind: Self.commandKind, slot: 0, detail: lastNumber)
        prepare(ring.nextSubmission(), token)
        if let result = wait(for: token, timeout: timeout) { return .completed(result) }

        // Left alone, a START_DEV that waits for its queues would keep the device from being deleted.
        cs_prep(
            ring.nextSubmission(), UInt8(IORING_OP_ASYNC_CANCEL.rawValue), -1, token.rawValue, 0, 0,
            CompletionToken(kind: Self.cancellationKind, slot: 0, detail: lastNumber).rawValue)
        switch wait(for: token, timeout: Self.cancellationTime) {
        case nil: return .abandoned
        case -EINTR, -ECANCELED: return .cancelled
        case .some(let result): return .completed(result)
        }
    }

    /// The result of `token`'s operation; completions of others, too late for their callers, are dropped.
    private func wait(for token: CompletionToken, timeout: Duration) -> Int32? {
        let deadline = Deadline(after: timeout)
        var result: Int32?
        while true {
            ring.submitAndWait(timeoutNanoseconds: deadline.remaining.nanoseconds)
            let count = ring.drain { completed, value in if completed == token { result = value } }
            if let result { return result }
            if deadline.hasPassed { return nil }
            // The kernel takes no submissions for the moment.
            if count == 0 && ring.hasUnsubmitted { pause(.milliseconds(1)) }
        }
    }
}

extension ControlCommand {
    /// The 32 bytes that the driver reads.
    var header: cs_ublk_control_command {
        var header = cs_ublk_control_command()
        header.dev_id = deviceID
        header.queue_id = CS_UBLK_NO_QUEUE
        header.data = argument
        if let buffer {
            header.addr = UInt64(UInt(bitPattern: buffer.bytes.baseAddress))
            header.len = UInt16(buffer.bytes.count)
        }
        return header
    }
}
