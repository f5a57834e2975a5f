import BlockStorage
import CSupport
import IOURing
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// An image file that a tool has for itself, or for reading: open, locked as QEMU locks it, with a ring to work on it.
///
/// Belongs to the thread that made it. The tool's I/O goes through the page cache, where the tables are read ahead.
final class OfflineImage: @unchecked Sendable {
    // SAFETY: used by the thread that made it.
    let path: String
    let file: ImageFile
    let backingFileName: BackingFileName?
    var structure: ImageStructure<FileStorage>
    private let loop: RingLoop

    /// - Parameters:
    ///   - sharing: read without a lock, beside a program that may be changing the image (QEMU's `-U`).
    ///   - discardsLostSession: change it even though a dead server has left a log.
    ///   - policy: where another image names this one.
    init(
        path: String, access: ImageFile.Access, sharing: Bool = false, discardsLostSession: Bool = false,
        policy: BackingPolicy? = nil
    ) throws(ImageToolError) {
        self.path = path
        let image: ImageHeader
        file = try ImageFile.openedForTool(
            path, access, sharing: sharing, allowBlockDevice: false,
            discardsLostSession: discardsLostSession, policy: policy)
        do throws(ImageReadError) { image = try ImageHeader(reading: file) } catch { throw .read(error) }
        do throws(Errno) { loop = try RingLoop(entries: 256, completionEntries: 1024) } catch { throw .noRing(error) }
        backingFileName = image.backingFileName
        structure = ImageStructure(
            storage: file.storage(on: loop.ring), header: image.header, fileSizeBytes: file.sizeBytes)
    }

    deinit { loop.close() }

    /// Runs `body` on this thread to its end.
    func run<Value: Sendable>(
        _ body: @escaping @Sendable () async throws(ImageToolError) -> Value
    ) throws(ImageToolError) -> Value {
        try loop.run(body)
    }

    /// Space that the file takes on its file system now.
    var allocatedBytes: UInt64 {
        var status = cs_file_status()
        return cs_status_of(file.descriptor, &status) == 0 ? status.allocated_bytes : 0
    }
}
