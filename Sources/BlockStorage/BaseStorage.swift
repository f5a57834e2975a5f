import IOURing
import SystemPackage

/// A file beneath the image as one queue sees it: it is only read, and may be anywhere that can be read from.
///
/// Operations go in with a token, and the token comes back with the result on the queue's thread. The image's own file is
/// `Storage`, which can be the storage of any file of the chain; the engine asks no more than this of those beneath.
public protocol BaseStorage: Sendable {
    /// What offsets, lengths and buffers must be multiples of.
    var alignment: StorageAlignment { get }

    /// Starts a read. It reaches the file when the owner of the queue next enters the kernel. The completion carries `token`
    /// and the bytes read, fewer than asked only at the end of the file; or a negative errno.
    func submitRead(into buffer: UnsafeMutableRawPointer, byteCount: UInt32, fileOffset: UInt64, token: CompletionToken)

    /// Whether it fills buffers that are registered with the queue's ring. Where it does not, a request whose data stays in the
    /// kernel's pages is given memory first.
    var takesRegisteredBuffers: Bool { get }

    /// Starts a transfer with a registered buffer. Only where those are taken.
    func submit(_ transfer: RegisteredTransfer, token: CompletionToken)

    /// The next range that may hold something else than zeros, from `fileOffset` on, as the file system says; empty, and at
    /// the file's end or past it, when there is none. For a thread that has something else to do meanwhile.
    /// - Returns: nil when the file cannot tell.
    func findData(from fileOffset: UInt64) async -> Range<UInt64>?

    /// Whether `findData` can be believed so far that what it calls a hole need not be copied. Some file systems have called
    /// data holes.
    var tellsHolesTruly: Bool { get }

    /// Whether it can be out of reach for a while, and then neither reads nor tells where holes are: what can do without its
    /// answer does not ask.
    var mayBeAway: Bool { get }

    /// Suspends the task for about so long. What else the queue has to do goes on.
    func pause(nanoseconds: UInt64) async
}

extension BaseStorage {
    public var mayBeAway: Bool { false }
}
