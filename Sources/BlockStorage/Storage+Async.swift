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

    /// Reads up to `byteCount` bytes.
    /// - Returns: how many were there; fewer only where the file ends.
    public func read(
        into buffer: UnsafeMutableRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) -> Int {
        var done = 0
        while done < byteCount {
            let position = fileOffset + UInt64(done)
            let piece = min(byteCount - done, transferLimitBytes)
            let result = await perform(.read(buffer + done, byteCount: UInt32(piece), fileOffset: position))
            if result == interrupted || result == tryAgain { continue }
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

    /// Writes all `byteCount` bytes; a file that never takes a whole block is an `ioError`.
    public func writeFully(
        from buffer: UnsafeRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) {
        var done = 0
        var attemptsInVain = 0
        while done < byteCount {
            let position = fileOffset + UInt64(done)
            let piece = min(byteCount - done, transferLimitBytes)
            let result = await perform(.write(buffer + done, byteCount: UInt32(piece), fileOffset: position))
            if result == interrupted || result == tryAgain { continue }
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
        var result: Int32
        repeat { result = await perform(.sync) } while result == interrupted || result == tryAgain
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
        var result: Int32
        repeat { result = await perform(operation) } while result == interrupted || result == tryAgain
        guard result >= 0 else {
            throw StorageError(name, fileOffset: fileOffset, byteCount: byteCount, errno: Errno(rawValue: -result))
        }
    }
}

/// The most that one operation transfers: well inside what the kernel moves in one call.
private let transferLimitBytes = 1 << 26

/// How often a block is written before it counts as one that cannot be.
private let writeAttemptLimit = 16

private let interrupted = -Errno.interrupted.rawValue
private let tryAgain = -Errno.resourceTemporarilyUnavailable.rawValue
