import IOURing
import SystemPackage

/// The same operations for code that can wait: each suspends its task until the completion and is finished in full, or
/// throws. Short transfers and interruptions are continued here.
extension Storage {
    /// Submits one operation and waits for its raw result.
    @inlinable
    public func perform(_ operation: StorageOperation) async -> Int32 {
        await withUnsafeContinuation { (continuation: CompletionContinuation) in
            submit(operation, token: CompletionToken(continuation))
        }
    }

    /// The same, and submits the operation again as long as the kernel says that it has done nothing yet.
    /// - Returns: the result; `EIO` where the kernel says nothing else for about two seconds.
    func performPatiently(_ operation: StorageOperation) async -> Int32 {
        await patiently { await perform(operation) }
    }
}

extension BaseStorage {
    /// Repeats what was interrupted or could not be begun: at once at first, then with pauses, and not for ever, because
    /// somebody waits for the answer.
    public func patiently(_ attempt: () async -> Int32) async -> Int32 {
        for number in 0..<Patience.attemptLimit {
            if number >= Patience.immediateAttempts {
                let doublings = number - Patience.immediateAttempts
                await pause(
                    nanoseconds: min(Patience.firstPauseNanoseconds << UInt64(doublings), Patience.longestPauseNanoseconds))
            }
            let result = await attempt()
            if result != interrupted && result != tryAgain { return result }
        }
        return -Errno.ioError.rawValue
    }

    /// Reads up to `byteCount` bytes.
    /// - Returns: how many were there; fewer only where the file ends.
    public func read(
        into buffer: UnsafeMutableRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) -> Int {
        var done = 0
        while done < byteCount {
            let position = fileOffset + UInt64(done)
            let piece = min(byteCount - done, transferLimitBytes)
            let place = buffer + done
            let result = await patiently {
                await withUnsafeContinuation { (continuation: CompletionContinuation) in
                    submitRead(
                        into: place, byteCount: UInt32(piece), fileOffset: position, token: CompletionToken(continuation))
                }
            }
            guard result >= 0 else {
                throw StorageError(
                    .read, fileOffset: position, byteCount: UInt64(piece), errno: Errno(rawValue: -result))
            }
            if result == 0 { break }
            done += Int(result)
            // Direct I/O: a short read that is no multiple of the block ends at the end of the file, and what follows it
            // could not be asked for.
            if done % alignment.offsetBytes != 0 { break }
        }
        return done
    }

    /// Reads exactly `byteCount` bytes; where the file ends before, that is an `ioError`.
    public func readFully(
        into buffer: UnsafeMutableRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) {
        let count = try await read(into: buffer, byteCount: byteCount, fileOffset: fileOffset)
        guard count >= byteCount else {
            throw StorageError(.read, fileOffset: fileOffset, byteCount: UInt64(byteCount), errno: .ioError)
        }
    }
}

extension Storage {
    /// Writes all `byteCount` bytes; a file that never takes a whole block is an `ioError`.
    public func writeFully(
        from buffer: UnsafeRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) {
        var done = 0
        var attemptsInVain = 0
        while done < byteCount {
            let position = fileOffset + UInt64(done)
            let piece = min(byteCount - done, transferLimitBytes)
            let result = await performPatiently(.write(buffer + done, byteCount: UInt32(piece), fileOffset: position))
            guard result > 0 else {
                throw StorageError(
                    .write, fileOffset: position, byteCount: UInt64(piece),
                    errno: result == 0 ? .ioError : Errno(rawValue: -result))
            }
            // A short direct write may end inside a block; that block is written again, but not for ever.
            let reached = done + Int(result)
            let next = reached < byteCount ? reached - reached % alignment.offsetBytes : reached
            attemptsInVain = next > done ? 0 : attemptsInVain + 1
            guard attemptsInVain < writeAttemptLimit else {
                throw StorageError(.write, fileOffset: position, byteCount: UInt64(piece), errno: .ioError)
            }
            done = next
        }
    }

    /// Makes durable what was completed before. A failure is final: what was lost is unknown, so it is never retried.
    public func sync() async throws(StorageError) {
        let result = await performPatiently(.sync)
        guard result >= 0 else { throw StorageError(.sync, errno: Errno(rawValue: -result)) }
    }

    public func allocate(fileOffset: UInt64, byteCount: UInt64, zeroed: Bool) async throws(StorageError) {
        try await performRange(
            .allocate, .allocate(fileOffset: fileOffset, byteCount: byteCount, zeroed: zeroed), fileOffset, byteCount)
    }

    public func punchHole(fileOffset: UInt64, byteCount: UInt64) async throws(StorageError) {
        try await performRange(
            .punchHole, .punchHole(fileOffset: fileOffset, byteCount: byteCount), fileOffset, byteCount)
    }

    public func zeroRange(fileOffset: UInt64, byteCount: UInt64) async throws(StorageError) {
        try await performRange(
            .zeroRange, .zeroRange(fileOffset: fileOffset, byteCount: byteCount), fileOffset, byteCount)
    }

    private func performRange(
        _ name: StorageError.Operation, _ operation: StorageOperation, _ fileOffset: UInt64, _ byteCount: UInt64
    ) async throws(StorageError) {
        let result = await performPatiently(operation)
        guard result >= 0 else {
            throw StorageError(name, fileOffset: fileOffset, byteCount: byteCount, errno: Errno(rawValue: -result))
        }
    }
}

/// The most that one operation transfers: well inside what the kernel moves in one call.
private let transferLimitBytes = 1 << 26

private enum Patience {
    static let attemptLimit = 32
    static let immediateAttempts = 8
    static let firstPauseNanoseconds: UInt64 = 1_000_000
    static let longestPauseNanoseconds: UInt64 = 100_000_000
}

/// How often a block is written before it counts as one that cannot be.
private let writeAttemptLimit = 16

private let interrupted = -Errno.interrupted.rawValue
private let tryAgain = -Errno.resourceTemporarilyUnavailable.rawValue
