import BlockStorage
import IOURing
import SystemPackage

/// An export as one queue reads it. Requests go to the export's thread, and answers come as completions of the queue's ring.
struct NBDBase: BaseStorage {
    let export: NBDExport
    let ring: Ring

    /// Its thread reads whole blocks where the server wants that.
    var alignment: StorageAlignment { .none }
    /// Data comes through a socket.
    var takesRegisteredBuffers: Bool { false }
    var tellsHolesTruly: Bool { export.tellsHolesTruly }
    var mayBeAway: Bool { true }

    func submitRead(into buffer: UnsafeMutableRawPointer, byteCount: UInt32, fileOffset: UInt64, token: CompletionToken) {
        let count = min(UInt64(byteCount), export.sizeBytes - min(fileOffset, export.sizeBytes))
        export.submit(
            ExportRequest(
                work: .read(into: buffer, byteCount: Int(count), offset: fileOffset),
                answer: .completion(token, ring: ring.address)))
    }

    func submit(_ transfer: RegisteredTransfer, token: CompletionToken) {
        preconditionFailure("no buffer can be registered with a socket")
    }

    func findData(from fileOffset: UInt64) async -> Range<UInt64>? { await export.findData(from: fileOffset) }

    func pause(nanoseconds: UInt64) async { await ring.pause(nanoseconds: nanoseconds) }
}
