import BlockStorage
import IOURing
import SystemPackage

/// A simulated file as one queue of the engine sees it.
struct SimulatedStorage: Storage {
    let io: SimulatedIO
    let disk: SimulatedDisk
    /// Whose inline tokens its operations carry.
    let queue: Int
    let alignment: StorageAlignment
    let tellsHolesTruly: Bool

    func submit(_ operation: StorageOperation, token: CompletionToken) {
        io.submit(.storage(operation), disk: disk, queue: queue, token: token, alignment: alignment)
    }

    func setLength(_ sizeBytes: UInt64) async throws(StorageError) {
        let result = await patiently {
            await withUnsafeContinuation { (continuation: CompletionContinuation) in
                io.submit(
                    .setLength(sizeBytes), disk: disk, queue: queue, token: CompletionToken(continuation),
                    alignment: alignment)
            }
        }
        guard result >= 0 else { throw StorageError(.setLength, errno: Errno(rawValue: -result)) }
    }

    /// Of a file that is written all is a hole, says this file system: nothing may depend on it.
    func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        tellsHolesTruly ? disk.nextData(from: fileOffset) : disk.length..<max(disk.length, fileOffset)
    }

    /// Other requests go on meanwhile.
    func findData(from fileOffset: UInt64) async -> Range<UInt64>? {
        await pause(nanoseconds: 1)
        return nextData(from: fileOffset)
    }

    /// Others write meanwhile.
    func hasRoomToSpare(besides byteCount: UInt64) async -> Bool {
        await pause(nanoseconds: 1)
        return true
    }

    func length() async throws(StorageError) -> UInt64 { disk.length }

    var nanoseconds: UInt64 { io.nanoseconds }

    func pause(nanoseconds: UInt64) async {
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            io.submit(
                .pause, disk: disk, queue: queue, token: CompletionToken(continuation), alignment: alignment)
        }
    }
}

/// A simulated file beneath the image: of another kind than the image's own, which the engine must not mind.
struct SimulatedBase: BaseStorage {
    let storage: SimulatedStorage

    var alignment: StorageAlignment { storage.alignment }
    var takesRegisteredBuffers: Bool { false }
    var tellsHolesTruly: Bool { storage.tellsHolesTruly }

    func submitRead(into buffer: UnsafeMutableRawPointer, byteCount: UInt32, fileOffset: UInt64, token: CompletionToken) {
        storage.submit(.read(buffer, byteCount: byteCount, fileOffset: fileOffset), token: token)
    }

    func submit(_ transfer: RegisteredTransfer, token: CompletionToken) {
        preconditionFailure("a base that takes no registered buffers was given one")
    }

    func findData(from fileOffset: UInt64) async -> Range<UInt64>? { await storage.findData(from: fileOffset) }

    func pause(nanoseconds: UInt64) async { await storage.pause(nanoseconds: nanoseconds) }
}
