import BlockStorage
import CSupport
import Glibc
import IOURing
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// Puts a device's disk back to what one of its snapshots has: an empty overlay over that takes the image's place, and the
/// image's file, with all that was written since the newest snapshot, goes.
///
/// The disk must not be in use: whoever has something of it in memory would go on with what the disk does not have any more.
/// It is held exclusively meanwhile, what its page caches have is written first, into the image that goes, and forgotten.
///
/// 1. The overlay is made, durably, beside the image.
/// 2. All queues are held. The two files get each other's names, durably; then the queues get the new image. Nothing is written
///    to it before: after a power cut the image's name leads to the one or the other, and never to less than was flushed.
/// 3. The file that was the image is removed.
struct Rollback {
    let device: LiveDevice
    let merges: MergeProgress
    /// Also where the disk is in use.
    let force: Bool
    private var session: ImageSession { device.session }
    private var diskPath: String { UblkPaths.blockDevice(device.record.deviceID) }

    /// What the new image is called until it is the image, and the old one from then on until it is removed: behind the image's
    /// name.
    static let nameSuffix = ".rollback"

    struct Outcome {
        var snapshot: String
        /// Newer ones, which are not beneath the image any more.
        var left: [String]
    }

    /// - Parameter path: of a file beneath the image.
    func run(to path: String) throws(SnapshotError) -> Outcome {
        try device.changing { () throws(SnapshotError) in
            try Snapshot(device).settle()
            guard merges.state == .idle else {
                throw .busy(
                    "snapshots beneath \(session.path) are being merged, or copied into it; wait for that, or cancel it")
            }
            let (image, chain) = session.top.withLock { ($0.image, $0.chain) }
            let index = try position(of: path, in: chain, image)
            let beneath = try layers(chain[index...])
            let disk = try takeDisk()
            // Also where nothing was changed.
            defer { disk.end() }
            if let failure = disk.forgetPages() {
                throw .cannot("\(diskPath) cannot be put back: \(failure); nothing was changed")
            }
            try replace(image, chain[0].file, by: beneath)
            return Outcome(snapshot: beneath[0].file.path, left: chain[1..<index].map(\.file.path))
        }
    }

    // MARK: - What it goes back to

    private func position(of path: String, in chain: [LayerFile], _ image: Image) throws(SnapshotError) -> Int {
        guard !image.isReadOnly else { throw .cannot("\(session.path) is only read: it has nothing to be put back from") }
        guard image.failedSync == nil else {
            throw .cannot("a sync of \(session.path) has failed; nothing is promised until the image is opened again")
        }
        let wanted = FileIdentity(ofFileAt: path)
        guard let index = chain.firstIndex(where: { $0.source.identity == wanted }), index > 0 else {
            throw .cannot("\(path): is not beneath \(session.path); 'qed-ublk snapshots' lists what is")
        }
        return index
    }

    /// The files that are beneath the image from then on.
    private func layers(_ chain: ArraySlice<LayerFile>) throws(SnapshotError) -> [LayerFile] {
        var layers: [LayerFile] = []
        for old in chain {
            let now: LayerFile
            do throws(LayerFileError) { now = try old.asItIsNow() } catch { throw .cannot("\(error)") }
            if case .qed(let header, _) = now.layer, header.hasUnfinishedMerge {
                throw .cannot(
                    "\(old.file.path): a merge into it was begun and not finished, so what lies over it is not what it was; "
                        + "finish that first (qed-ublk commit --into)")
            }
            // The file that is open has the lock.
            layers.append(LayerFile(file: old.file, layer: now.layer))
        }
        return layers
    }

    // MARK: - The disk

    private func takeDisk() throws(SnapshotError) -> DiskExchange {
        do throws(DiskUse) { return try DiskExchange(ofDiskAt: diskPath, force: force) } catch {
            throw .busy(force ? "\(error)" : "\(error), or use --force: its users go on with what they have in memory")
        }
    }

    // MARK: - The image

    private func names(of imageFile: ImageFile) throws(SnapshotError) -> SnapshotNames {
        let path: String
        do throws(ImageFileError) { path = try AbsolutePath.ofReplaced(session.path, openedAs: imageFile) } catch {
            throw .cannot("\(error)")
        }
        return try SnapshotNames(of: imageFile, at: session.path, snapshotPath: path + Self.nameSuffix)
    }

    private func replace(_ image: Image, _ imageFile: ImageFile, by beneath: [LayerFile]) throws(SnapshotError) {
        let base = beneath[0].file.path
        let names = try names(of: imageFile)
        let replaced = MergedFiles.File(path: names.snapshotPath, file: imageFile.identity)
        let overlay = NextOverlay(device: device, names: names, image: image, imageFile: imageFile)
        var (isOurs, made) = (true, FileIdentity?.none)
        defer { if isOurs { overlay.abandon(made) } }
        let isRaw = !beneath[0].isQED
        let rollback = RolledBackImage(file: replaced, backingFiles: beneath.map(\.source.identity))
        do throws(SnapshotError) {
            made = try overlay.make(over: names.backingName(of: base), isRaw: isRaw, rollback: rollback)
        } catch .exists(let path) {
            throw .busy("\(path): exists already, from a rollback that has failed perhaps; look what it is, and remove it")
        }
        let opened = try overlay.open()
        defer { if isOurs { opened.sessionFile.remove() } }
        let layer = Layer.qed(header: try overlay.header(of: opened), fileSizeBytes: opened.file.sizeBytes)
        let chain = [LayerFile(file: opened.file, layer: layer)] + beneath
        let next = try open(chain, opened)
        var old: SessionFile?
        var refusal: SnapshotError?
        do throws(QueueSilence) {
            try device.whileQuiet {
                do throws(SnapshotError) {
                    guard image.failedSync == nil else { throw .cannot("a sync of \(session.path) has failed") }
                    try names.exchange(image: imageFile.identity, overlay: opened.file.identity)
                } catch {
                    refusal = error
                    return
                }
                isOurs = false
                if let errno = names.sync() {
                    // Which of both a power cut would leave nobody knows: nothing is promised any more, and nothing removed.
                    image.promiseNothing(errno)
                    refusal = .cannot(
                        "the directory of \(session.path) cannot be synced: \(errno); the disk is as it was, and nothing is "
                            + "promised until the image is opened again; then \(names.overlayPath) can be removed")
                    try? names.exchange(image: opened.file.identity, overlay: imageFile.identity)
                    return
                }
                device.askAll { $0.replaceEngine(of: next, chain: chain) }
                session.top.withLock { top in
                    old = top.sessionFile
                    top.image = next
                    top.chain = chain
                    top.sessionFile = opened.sessionFile
                }
            }
        } catch {
            throw .busy("\(error); nothing was changed")
        }
        if let refusal { throw refusal }
        opened.file.rename(to: names.imagePath)
        old?.remove()
        try? MergedFiles(files: [replaced]).remove()
        // From now on the path tells: a record that cannot be written is no error.
        try? device.note { $0.rollback = nil }
    }

    private func open(_ chain: [LayerFile], _ opened: NextOverlay.Opened) throws(SnapshotError) -> Image {
        let loop: RingLoop
        do throws(ServerError) { loop = try ImageSession.makeLoop() } catch { throw .cannot("\(error)") }
        defer { loop.close() }
        let storages = chain.storages(on: loop.ring)
        let options = ImageOptions(
            cacheBytes: device.cacheBytes, session: opened.sessionFile.memory, keepsReads: device.keepsReads,
            recorder: device.recorder)
        do throws(ImageOpenError) {
            return try loop.run { () throws(ImageOpenError) in
                try await Image.open(chain: chain.map(\.layer), storages: storages, options: options)
            }
        } catch {
            throw .cannot("\(opened.file.path): \(error)")
        }
    }
}

/// An image whose place another one is about to take, or has taken: where its file is then, which is to be removed.
struct RolledBackImage: Equatable, Sendable {
    var file: MergedFiles.File
    /// Those beneath the new image.
    var backingFiles: [FileIdentity]

    /// Ends a rollback whose server died when the new image had its name. Before anything is written to that.
    /// - Parameter imagePath: of the image.
    func finish(imagePath: String, registry: DeviceRegistry = DeviceRegistry()) throws(Errno) {
        try SnapshotNames.sync(ofFilesAt: [imagePath])
        // What stays is in nobody's way.
        try? MergedFiles(files: [file]).remove()
        unlink(SessionLogPath.path(inDirectory: registry.directory, image: file.file))
    }
}
