import CNBD

/// A connection to an NBD server: one handle of libnbd. Belongs to the thread that made it.
final class NBDConnection {
    enum State { case connecting, ready, dead }

    // SAFETY: from `cnbd_open`, closed once, in `deinit`.
    private let handle: OpaquePointer
    /// It can be asked for reads alone: nothing else was negotiated.
    let isPlain: Bool
    /// What was asked of it and is not answered.
    var requests: Set<UInt64> = []
    /// When it last did something, or was made.
    var lastProgress: UInt64
    /// It was ready when it was last looked at.
    var wasReady = false
    /// Its server has said that it ends, or libnbd that it is lost.
    var isLeaving = false
    /// It is given nothing more, and ends when it has answered.
    var makesRoom = false

    /// Begins to connect.
    /// - Parameter isPlain: with as few questions as there can be: where holes are it will not tell.
    /// - Throws: where that cannot even be begun.
    init(_ address: NBDAddress, isPlain: Bool, now: UInt64) throws(NBDFailure) {
        guard cnbd_load() == 0 else { throw .noLibrary }
        let certificates = address.isEncrypted ? try CertificateFolder.find() : nil
        guard let handle = cnbd_open(address.text, certificates, isPlain ? 1 : 0) else { throw .lastOfThread }
        self.handle = handle
        self.isPlain = isPlain
        lastProgress = now
    }

    deinit { cnbd_close(handle) }

    var state: State {
        switch cnbd_state_of(handle) {
        case CNBD_READY: .ready
        case CNBD_DEAD: .dead
        default: .connecting
        }
    }

    /// For poll.
    var descriptor: Int32 { cnbd_descriptor(handle) }
    var events: Int16 { cnbd_events(handle) }
    func notify(_ events: Int16) { cnbd_notify(handle, events) }

    /// Once it is ready.
    var shape: ExportShape {
        ExportShape(
            sizeBytes: UInt64(clamping: cnbd_size(handle)), takesSeveralConnections: cnbd_can_multi_connect(handle) != 0,
            tellsExtents: !isPlain && cnbd_can_tell_extents(handle) != 0,
            smallestBlockBytes: UInt64(max(cnbd_smallest_block(handle), 1)),
            largestBlockBytes: cnbd_largest_block(handle) > 0 ? UInt64(cnbd_largest_block(handle)) : 32 << 20)
    }

    /// Begins a request; its callbacks are called with `owner` and the number.
    func begin(
        _ number: UInt64, _ work: ExportRequest.Work, found: cnbd_found, done: cnbd_done, owner: UnsafeMutableRawPointer
    ) throws(NBDFailure) {
        let result =
            switch work {
            case .read(let buffer, let byteCount, let offset):
                cnbd_read(handle, buffer, byteCount, offset, done, owner, number)
            case .extents(let offset, let byteCount):
                cnbd_extents(handle, byteCount, offset, found, done, owner, number)
            }
        guard result == 0 else { throw .lastOfThread }
    }
}

/// What a server says of an export.
struct ExportShape: Equatable, Sendable {
    var sizeBytes: UInt64
    var takesSeveralConnections: Bool
    /// `base:allocation`.
    var tellsExtents: Bool
    var smallestBlockBytes: UInt64
    var largestBlockBytes: UInt64

    /// Whether its blocks are those of a disk, or of the protocol (64 KiB at most): memory is had for them.
    var isSensible: Bool { smallestBlockBytes.nonzeroBitCount == 1 && smallestBlockBytes <= 1 << 16 }
}

/// Why an export cannot be used.
public struct NBDFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }

    static let noLibrary = NBDFailure("there is no libnbd on this machine; install libnbd0")

    /// What libnbd said last on this thread, without the name of its function.
    static var lastOfThread: NBDFailure {
        var text = String(cString: cnbd_error())
        while text.hasPrefix("nbd_"), let colon = text.firstIndex(of: ":") {
            text = String(text[colon...].dropFirst().drop { $0 == " " })
        }
        return NBDFailure(text)
    }
}
