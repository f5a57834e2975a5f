import SystemPackage

/// System calls that may wait for a disk and that io_uring does not have, made by a thread of their own, so that the thread
/// that serves requests does not wait with them.
///
/// One thread for the process, made at the first call: these calls are rare, and one that hangs must hold up nobody but others
/// of its kind.
public final class BlockingCalls: Sendable {
    private let thread = Lock<SerialThread?>(nil)

    public static let shared = BlockingCalls()

    private init() {}

    /// Makes the call on the thread, after those that came before, and suspends the task until its end. Where there can be no
    /// further thread it is made here.
    /// - Returns: what the call returns.
    public func run(_ body: @escaping () -> Int64) async -> Int64 {
        guard let thread = madeThread() else { return body() }
        return await withUnsafeContinuation { caller in thread.append { caller.resume(returning: body()) } }
    }

    private func madeThread() -> SerialThread? {
        thread.withLock { thread in
            if thread == nil { thread = try? SerialThread(name: "blocking calls") }
            return thread
        }
    }
}
