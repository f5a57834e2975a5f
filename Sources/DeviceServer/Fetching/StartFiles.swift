import Logging
import Platform
import QEDChain
import QEDEngine
import QEDFormat

/// What is read at a device's start is written down, or fetched in the order in which it was read then: the files of `add
/// --record` and `--prefetch`. Of the first server of a device alone. Belongs to its main thread.
final class StartFiles {
    private let recording: RecordingFile?
    private let prefetch: (recording: ReadRecording, path: String)?
    private var prefetching: (thread: BackgroundThread, progress: MergeProgress)?

    var recorder: ReadRecorder? { recording?.recorder }

    /// Opens and reads the files. Nothing is made but an empty one for a recording.
    init(_ configuration: ServerConfiguration) throws(ServerError) {
        do throws(ReadRecordingError) {
            prefetch = try configuration.prefetchPath.map { path throws(ReadRecordingError) in
                (try ReadRecording(ofFileAt: path), path)
            }
            recording = try configuration.recordPath.map { path throws(ReadRecordingError) in try RecordingFile(path: path) }
        } catch {
            throw .reads(error)
        }
    }

    /// Whether they are of use for an image.
    func check(_ files: ImageFiles) throws(ServerError) {
        if let recording, files.chain.last?.isQED ?? true {
            throw .nothingToRecord(path: files.path, recording: recording.path)
        }
        guard let prefetch, case .qed(let header, _) = files.chain[0].layer else { return }
        do throws(ReadRecordingError) {
            try prefetch.recording.expect(diskSizeBytes: header.imageSizeBytes, path: prefetch.path)
        } catch {
            throw .reads(error)
        }
    }

    /// There is no device, and will be none.
    func abandon() { recording?.abandon() }

    /// The disk can be used.
    func begin(_ live: LiveDevice, log: Logger) {
        recording?.begin(diskSizeBytes: live.session.image.sizeBytes, log: log)
        guard let prefetch else { return }
        let progress = MergeProgress()
        progress.begin()
        let thread = try? BackgroundThread {
            let start = ContinuousClock.now
            do throws(WarmingError) {
                let warming = Warming(device: live, progress: progress, isBackground: true)
                let bytes = try warming.run(prefetch.recording.ranges)
                let duration = ContinuousClock.now - start
                log.info("prefetched \(bytes) bytes of \(prefetch.path) in \(duration.milliseconds) ms")
            } catch {
                log.notice("prefetching \(prefetch.path) has ended: \(error)")
            }
        }
        guard let thread else { return log.warning("\(prefetch.path): the server has no thread to prefetch with") }
        prefetching = (thread, progress)
    }

    /// The disk is gone, or about to get another server.
    func end() {
        if let prefetching {
            prefetching.progress.cancel()
            prefetching.thread.join()
        }
        prefetching = nil
        recording?.end()
    }
}
