import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// Room for what a device keeps of its base, where that is bounded (`add --keep-limit`).
///
/// What is kept lies in two files at most, each of half the limit: the image, and beneath it, by its name and `.older`, what was
/// the image before. When the image is nearly full
///
/// 1. it goes over the base itself, durably, and the older file is removed: whatever was in that can be read from the base again;
/// 2. a snapshot is taken: the image's file is the older one from then on, and an empty overlay the image.
///
/// What is read from the older file is kept in the image again, so that what is in use stays when the older file goes.
/// Killed or without power between any two steps all files show what the base has.
struct KeptRoom: Sendable {
    let device: LiveDevice
    private var session: ImageSession { device.session }

    init(_ device: LiveDevice) {
        precondition(device.keepLimitBytes != nil, "a device that lets nothing go")
        self.device = device
    }

    static func olderPath(of path: String) -> String { path + ".older" }

    /// - Parameter image: that was full. Where it is not the image any more somebody else has made room.
    func make(insteadOf image: Image) throws(SnapshotError) {
        try device.makesRoom.withLock { (_: inout Void) throws(SnapshotError) in try makeAlone(insteadOf: image) }
    }

    private func makeAlone(insteadOf image: Image) throws(SnapshotError) {
        guard session.image === image else { return }
        try device.changing { () throws(SnapshotError) in try forgetOlder() }
        _ = try Snapshot(device).take(at: try olderPath(), .snapshotIsNamed)
    }

    private func olderPath() throws(SnapshotError) -> String {
        do throws(ImageFileError) {
            return Self.olderPath(of: try AbsolutePath.ofReplaced(session.path, openedAs: session.chain[0].file))
        } catch {
            throw .cannot("\(error)")
        }
    }

    /// Whether a file has nothing of its own.
    static func isExpendable(_ file: ImageFile) -> Bool {
        guard let header = try? ImageHeader(reading: file).header else { return false }
        return header.hasOnlyKeptReads
    }

    private func forgetOlder() throws(SnapshotError) {
        try Snapshot(device).settle()
        let (image, chain) = (session.image, session.chain)
        guard chain.count == 3 else { return try removeLeftOver() }
        let older = chain[1].file
        guard Self.isExpendable(older), Self.isExpendable(chain[0].file) else {
            throw .cannot("\(older.path): another program has written to it, so it stays, and \(session.path) keeps no more")
        }
        do throws(ImageFileError) { try older.keepForItself() } catch { throw .cannot("\(error)") }
        var isGone = false
        defer { if !isGone { older.letOthersRead() } }
        try refuseOverlays(of: older, in: chain)
        let (next, name) = try base(beneath: older, of: image)
        let removed = MergedFiles(files: [.init(path: older.path, file: older.identity)])
        let base = chain[2]
        do throws(RegistryError) {
            try device.note { record in
                record.nextBackingFiles = [base.source.identity]
                record.mergedFiles = removed.files
            }
        } catch {
            throw .cannot("\(error)")
        }
        do throws(OwnWorkError) {
            try device.onFirstQueue(changing: { queue throws(HeaderChangeError) in
                try await queue.changeHeader(.backingFile(name, isRaw: true))
            })
        } catch {
            switch error {
            case .noAnswer: throw .busy("queue 0 does not answer")
            case .header(let error): throw .cannot("\(session.path): \(error)")
            }
        }
        let (device, session) = (device, session)
        let replacement = ChainReplacement(next: next, files: [chain[0], base]) {
            // What stays is in nobody's way but the next one's, which removes it.
            try? removed.remove()
            try? device.note { record in
                record.backingFiles = session.backingFiles
                record.nextBackingFiles = nil
                record.mergedFiles = []
            }
        }
        // From now on it is, when the queues have been quiet.
        isGone = true
        do throws(QueueSilence) { try device.replaceChainWhenQuiet(replacement) } catch { throw .busy("\(error)") }
    }

    /// Whoever has it open has kept us from locking it; here are those that nobody has open.
    private func refuseOverlays(of older: ImageFile, in chain: [LayerFile]) throws(SnapshotError) {
        let found: (overlay: String, file: String)?
        do throws(OverlaySearch.Doubt) {
            found = try OverlaySearch.overlay(
                of: [older.identity: older.path], besides: Set(chain.map(\.source.identity)),
                in: [FilePath(older.path).removingLastComponent().string])
        } catch {
            throw .cannot("cannot tell whether \(error.path) lies over what is to go: \(error.errno)")
        }
        guard let found else { return }
        throw .cannot("\(found.file): \(found.overlay) lies over it; remove that, or have it lie over the device")
    }

    private func base(beneath older: ImageFile, of image: Image) throws(SnapshotError) -> (NextChain, BackingFileName) {
        let name: BackingFileName?
        do throws(ImageReadError) { name = try ImageHeader(reading: older).backingFileName } catch { throw .cannot("\(error)") }
        guard let name else { throw .cannot("\(older.path): names no base any more") }
        do throws(Errno) { return (try NextChain.of(image, withoutKept: 1), name) } catch {
            throw .cannot("no memory for the tables of \(session.path): \(error)")
        }
    }

    /// An older file that is beneath nothing any more, of a server that was killed before it could remove it.
    private func removeLeftOver() throws(SnapshotError) {
        let path = try olderPath()
        guard access(path, F_OK) == 0 else { return }
        let file: ImageFile
        do throws(ImageFileError) {
            // Not one that somebody has open.
            file = try ImageFile(path: path, access: .readWrite, caching: .buffered, lock: .writable)
        } catch {
            throw .cannot("\(error)")
        }
        guard Self.isExpendable(file) else {
            throw .cannot("\(path): is there, and nothing that \(session.path) has kept; move it away, so that more can be kept")
        }
        do throws(Errno) { try MergedFiles(files: [.init(path: path, file: file.identity)]).remove() } catch {
            throw .cannot("\(path): cannot be removed: \(error)")
        }
    }
}
