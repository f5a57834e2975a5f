import CSupport
import IOURing

/// How a submission names the character device.
public struct DeviceFile: Sendable {
    @usableFromInline let number: Int32
    @usableFromInline let flags: UInt8

    @inlinable init(number: Int32, flags: UInt8) {
        self.number = number
        self.flags = flags
    }

    @inlinable public static func descriptor(_ descriptor: Int32) -> DeviceFile {
        DeviceFile(number: descriptor, flags: 0)
    }

    /// The index among the files registered with the ring, which saves a reference per command.
    @inlinable public static func registered(index: Int32) -> DeviceFile {
        DeviceFile(number: index, flags: CS_SQE_FIXED_FILE)
    }
}

/// Where the driver is to put the data of a tag's next request: two words of the command, one of them 0.
public struct TagData: Equatable, Sendable {
    @usableFromInline let commandAddress: UInt64
    @usableFromInline let submissionAddress: UInt64

    @inlinable @inline(__always)
    init(commandAddress: UInt64, submissionAddress: UInt64) {
        self.commandAddress = commandAddress
        self.submissionAddress = submissionAddress
    }

    /// Copied: of a write into this buffer before the request arrives, of a read out of it with its commit. The buffer
    /// belongs to the driver until the request arrives.
    @inlinable @inline(__always)
    public static func copied(_ buffer: UnsafeMutableRawPointer) -> TagData {
        TagData(commandAddress: UInt64(UInt(bitPattern: buffer)), submissionAddress: 0)
    }

    /// Its pages are registered with the ring at this index, from the request's arrival to its commit (6.16,
    /// `autoBufferRegistration`). Where that fails the request arrives all the same, with `needsBufferRegistration`.
    @inlinable @inline(__always)
    public static func registered(index: UInt16) -> TagData {
        TagData(commandAddress: 0, submissionAddress: UInt64(index) | CS_UBLK_AUTO_BUFFER_FALLBACK)
    }
}

/// How an I/O command came back: a request is there, or why none is.
public enum FetchResult: Equatable, Sendable {
    /// Read the tag's descriptor.
    case request
    /// The device stops or its server is being replaced: leave this tag alone from now on.
    case aborted
    /// The driver asks for a write's data first; only with the feature `needGetData`, which we never ask for.
    case needsData
    /// The driver did not take our command: a negative errno.
    case refused(Int32)

    @inlinable @inline(__always)
    public init(result: Int32) {
        switch result {
        case CS_UBLK_IO_RES_OK: self = .request
        case CS_UBLK_IO_RES_ABORT: self = .aborted
        case CS_UBLK_IO_RES_NEED_GET_DATA: self = .needsData
        default: self = .refused(result)
        }
    }
}

/// Prepares the commands by which a queue's thread receives and answers requests. They are submitted with the ring's
/// next entry.
///
/// All commands of a queue come from one thread (6.12), of a tag where the device has `perIODaemon` (6.16).
public enum QueueCommands {
    /// Asks for the first request of a tag. Once per tag.
    @inlinable @inline(__always)
    public static func fetch(
        on ring: Ring, device: DeviceFile, queue: UInt16, tag: UInt16, data: TagData, token: CompletionToken
    ) {
        prepare(
            CS_UBLK_FETCH_REQ, in: ring.nextSubmission(), device: device, queue: queue, tag: tag, result: 0, data: data,
            token: token)
    }

    /// Answers the request of a tag and asks for its next one.
    /// - Parameter result: the whole size in bytes, or a negative errno; nothing between: a short write counts as a
    ///   complete one on 7.3. For FLUSH, DISCARD and WRITE ZEROES 0 is success. Never EAGAIN.
    @inlinable @inline(__always)
    public static func commitAndFetch(
        on ring: Ring, device: DeviceFile, queue: UInt16, tag: UInt16, result: Int32, data: TagData,
        token: CompletionToken
    ) {
        prepare(
            CS_UBLK_COMMIT_AND_FETCH_REQ, in: ring.nextSubmission(), device: device, queue: queue, tag: tag,
            result: result, data: data, token: token)
    }

    @inlinable @inline(__always)
    static func prepare(
        _ opcode: UInt32, in submission: UnsafeMutablePointer<cs_io_uring_sqe>, device: DeviceFile, queue: UInt16,
        tag: UInt16, result: Int32, data: TagData, token: CompletionToken
    ) {
        cs_prep_uring_cmd(submission, device.number, opcode, token.rawValue)
        cs_sqe_set_address(submission, data.submissionAddress)
        cs_sqe_set_flags(submission, device.flags)
        cs_ublk_set_io_command(
            submission, cs_ublk_io_command(q_id: queue, tag: tag, result: result, addr: data.commandAddress))
    }
}
