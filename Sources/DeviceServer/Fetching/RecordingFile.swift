import CSupport
import Glibc
import Logging
import Platform
import QEDEngine
import SystemPackage
import Ublk

/// The file of `add --record`, while a device is served: a thread adds lines to it now and then, so that it can be read whatever
/// becomes of the server. Belongs to the server's main thread.
final class RecordingFile {
    let path: String
    /// Told of reads by the queues.
    let recorder: ReadRecorder
    private let file: FileDescriptor
    private let isNew: Bool
    private let clock: RecordingClock
    private let isEnding = Answer<Bool>()
    private var thread: BackgroundThread?

    private static let interval = Duration.seconds(1)

    /// Makes the file, or opens an empty one.
    init(path: String) throws(ReadRecordingError) {
        let flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY
        var descriptor = open(path, flags | O_CREAT | O_EXCL, 0o644)
        isNew = descriptor >= 0
        if !isNew, errno == EEXIST { descriptor = open(path, flags) }
        guard descriptor >= 0 else { throw ReadRecordingError(path: path, .cannotWrite(Errno(rawValue: errno))) }
        file = FileDescriptor(rawValue: descriptor)
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size == 0 else {
            close(descriptor)
            throw ReadRecordingError(path: path, .hasContent)
        }
        let clock = RecordingClock()
        (self.path, self.clock) = (path, clock)
        recorder = ReadRecorder { clock.milliseconds }
    }

    /// There will be no device: the file is as it was.
    func abandon() {
        if isNew { unlink(path) }
        try? file.close()
    }

    /// The disk can be used from now on.
    func begin(diskSizeBytes: UInt64, log: Logger) {
        clock.start()
        let (file, recorder, isEnding, path) = (self.file, self.recorder, self.isEnding, self.path)
        thread = try? BackgroundThread {
            do {
                try file.writeAll(ReadRecording.firstLine(diskSizeBytes: diskSizeBytes).utf8)
                var isLast = false
                while !isLast {
                    isLast = isEnding.wait(timeout: Self.interval) != nil
                    let lines = recorder.take().map(ReadRecording.line).joined()
                    if !lines.isEmpty { try file.writeAll(lines.utf8) }
                }
            } catch {
                log.warning("\(path): what is read is recorded no more: \(error)")
            }
        }
        if thread == nil { log.warning("\(path): nothing is recorded: the server has no thread for that") }
    }

    /// The disk's users read nothing any more: the rest is written. Once.
    func end() {
        isEnding.give(true)
        thread?.join()
        try? file.close()
    }
}

/// Milliseconds since it was started, and 0 before that. Any thread.
private final class RecordingClock: Sendable {
    private let startNanoseconds = Lock<UInt64?>(nil)

    func start() { startNanoseconds.withLock { $0 = cs_monotonic_nanoseconds() } }

    var milliseconds: UInt64 {
        guard let start = startNanoseconds.withLock({ $0 }) else { return 0 }
        return (cs_monotonic_nanoseconds() - start) / 1_000_000
    }
}
