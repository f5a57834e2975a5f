import BlockStorage
import CSupport
import Glibc
import IOURing
import Logging
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// A snapshot of a device that serves: the image's file becomes the snapshot, and the device goes on over it, on an overlay that
/// has the image's name. See `TopSwitch` for what that means for the engine.
///
/// 1. The overlay is made, durably, under the snapshot's name, and opened.
/// 2. All queues are held until nothing is under way. The two files get each other's names, or the device's record the overlay's,
///    and the queues the new image.
/// 3. In the background the file that was the image is sealed, and its name made durable: then the snapshot is, too.
/// 4. The image adopts the tables of what lies beneath it, when nothing is under way; else in the moment in which the next
///    snapshot switches, or in one of its own before anything else changes the chain.
///
/// Runs on a thread of its own; one at a time for a device.
struct Snapshot: Sendable {
    let device: LiveDevice
    private var session: ImageSession { device.session }
    private var policy: BackingPolicy { device.policy }

    init(_ device: LiveDevice) { self.device = device }

    /// Which of the two files gets a new name.
    enum Way: Equatable, Sendable {
        /// What the image was: the image's name leads to the newest state.
        case snapshotIsNamed
        /// The overlay: the image's name stays with what it was, as QEMU does it.
        case overlayIsNamed
    }

    /// - Parameter path: absolute; nothing is there.
    /// - Returns: how long requests had to wait, in microseconds: for those under way, and for the switch.
    func take(at path: String, _ way: Way) throws(SnapshotError) -> UInt64 {
        try device.changing { () throws(SnapshotError) in try takeAlone(at: path, way) }
    }

    /// Sees to it that the last snapshot, merge or copy is done with, for whoever changes the chain next.
    func settle() throws(SnapshotError) {
        guard let tables = try finishLast() else { return }
        do throws(QueueSilence) { try device.whileQuiet { adopt(tables) } } catch {
            throw .busy("the last snapshot of \(session.path) is not done with yet: \(error); try again")
        }
    }

    /// The same, but for the tables of the last snapshot.
    /// - Returns: them, to be adopted while all queues are quiet; nil where they are already.
    private func finishLast() throws(SnapshotError) -> AdoptedTables? {
        do throws(QueueSilence) { try device.settle() } catch { throw .busy("\(error)") }
        try finish()
        let (image, lower) = session.top.withLock { ($0.image, $0.lower) }
        return lower.map { _ in image.tablesToAdopt() }
    }

    private func takeAlone(at path: String, _ way: Way) throws(SnapshotError) -> UInt64 {
        let lastTables = try finishLast()
        let (image, chain) = session.top.withLock { ($0.image, $0.chain) }
        guard !image.isReadOnly else { throw .cannot("\(session.path) is only read: it is its own snapshot") }
        guard image.failedSync == nil else {
            throw .cannot("a sync of \(session.path) has failed; nothing is promised until the image is opened again")
        }
        try Snapshot.checkRoom(in: chain)
        guard !policy.refusesBackingFiles else {
            throw .cannot("\(session.path) was added with --no-backing, and would lie over the snapshot")
        }
        let names = try Snapshot.names(of: chain[0].file, servedAt: session.path, path, way, policy)
        let overlay = NextOverlay(device: device, names: names, image: image, imageFile: chain[0].file)
        var (isOurs, made) = (true, FileIdentity?.none)
        defer { if isOurs { overlay.abandon(made) } }
        made = try overlay.make(over: names.backingName)
        let opened = try overlay.open()
        let (file, sessionFile) = (opened.file, opened.sessionFile)
        defer { if isOurs { sessionFile.remove() } }
        let next = try open(
            opened, try overlay.header(of: opened), names,
            over: TopSwitch(from: image, adopting: lastTables) {
                let result = await BlockingCalls.shared.run { Int64(names.sync()?.rawValue ?? 0) }
                return result == 0 ? nil : Errno(rawValue: Int32(result))
            })

        let began = cs_monotonic_nanoseconds()
        var refusal: SnapshotError?
        do throws(QueueSilence) {
            try device.queues.whileQuiet(timeout: LiveDevice.quietTimeout) {
                do throws(SnapshotError) {
                    // It may have failed while the queues were held.
                    guard image.failedSync == nil else { throw .cannot("a sync of \(session.path) has failed") }
                    try makeImage(of: file, insteadOf: chain[0].file, names)
                } catch {
                    refusal = error
                    return
                }
                isOurs = false
                if let lastTables { adopt(lastTables) }
                switchTop(
                    to: next, [LayerFile(file: file, layer: .qed(header: next.header, fileSizeBytes: file.sizeBytes))] + chain)
                session.top.withLock { top in
                    if !names.areExchanged { top.path = names.imagePath }
                    top.lower = ImageSession.Lower(image: image, sessionFile: top.sessionFile, names: names)
                    top.image = next
                    top.sessionFile = sessionFile
                }
            }
        } catch {
            throw .busy("\(error); nothing was changed")
        }
        if let refusal { throw refusal }
        let took = (cs_monotonic_nanoseconds() - began) / 1000
        file.rename(to: names.imagePath)
        // From now on the path tells: a record that cannot be written is no error.
        try? device.note { _ in }
        try finish()
        adoptIfIdle()
        return took
    }

    // MARK: - Before

    static func checkRoom(in chain: [LayerFile]) throws(SnapshotError) {
        guard chain.hasRoomForOverlay else {
            throw .cannot("\(chain[0].file.path) lies over \(chain.count - 1) files, and no more could be opened")
        }
    }

    /// Those of the two files, by which each will find what it names.
    static func names(
        of image: ImageFile, servedAt imagePath: String, _ path: String, _ way: Way, _ policy: BackingPolicy
    ) throws(SnapshotError) -> SnapshotNames {
        switch way {
        case .snapshotIsNamed:
            let names = try SnapshotNames(of: image, at: imagePath, snapshotPath: path)
            try names.checkBackingName(of: image)
            return names
        case .overlayIsNamed:
            // From now on an image names it.
            do throws(ImageFileError) {
                _ = try ImageFile(path: imagePath, access: .readOnly, caching: .buffered, lock: nil, policy: policy)
            } catch {
                throw .cannot("\(error)")
            }
            return try SnapshotNames(ofOverlayAt: path, overImageAt: imagePath)
        }
    }

    private func open(
        _ opened: NextOverlay.Opened, _ header: QEDHeader, _ names: SnapshotNames, over topSwitch: TopSwitch
    ) throws(SnapshotError) -> Image {
        let loop: RingLoop
        do throws(ServerError) { loop = try ImageSession.makeLoop() } catch { throw .cannot("\(error)") }
        defer { loop.close() }
        let options = ImageOptions(
            cacheBytes: device.cacheBytes, session: opened.sessionFile.memory, keepsReads: device.keepsReads,
            keptLimitBytes: device.keptLimitBytes, recorder: device.recorder)
        let (storage, fileSizeBytes) = (opened.file.storage(on: loop.ring), opened.file.sizeBytes)
        do throws(ImageOpenError) {
            return try loop.run { () throws(ImageOpenError) in
                try await Image.open(
                    top: .qed(header: header, fileSizeBytes: fileSizeBytes), storage: storage, options: options,
                    over: topSwitch)
            }
        } catch {
            throw .cannot("\(opened.file.path): \(error)")
        }
    }

    // MARK: - The switch

    /// The image is that file from now on, for whoever serves the device next. While all queues are quiet.
    private func makeImage(
        of overlay: ImageFile, insteadOf image: ImageFile, _ names: SnapshotNames
    ) throws(SnapshotError) {
        if names.areExchanged { return try names.exchange(image: image.identity, overlay: overlay.identity) }
        do throws(RegistryError) {
            try device.note { record in
                record.nextImage = nil
                record.nextSnapshot = nil
                record.unsealedSnapshot = names.snapshotPath
                record.imagePath = names.imagePath
                record.image = overlay.identity
                record.backingFiles = session.chain.map(\.source.identity)
            }
        } catch {
            throw .cannot("\(error)")
        }
    }

    /// While all queues are quiet.
    private func switchTop(to image: Image, _ chain: [LayerFile]) {
        device.askAll { $0.switchTop(to: image, chain: chain) }
        session.top.withLock { $0.chain = chain }
    }

    // MARK: - After it

    /// Seals what was the top before, with its name, and lets others read it.
    private func finish() throws(SnapshotError) {
        guard let lower = session.top.withLock({ $0.lower }), !lower.isSealed else { return }
        try seal(lower)
        session.top.withLock { top in
            top.chain[1].file.becomeBase(at: lower.names.snapshotPath)
            top.lower?.isSealed = true
        }
        lower.sessionFile?.remove()
        try? device.note { $0.unsealedSnapshot = nil }
    }

    private func seal(_ lower: ImageSession.Lower) throws(SnapshotError) {
        let ended = Answer<RequestError?>()
        let begun = device.queues.mailboxes[0].ask { target, _ in target.beginSealingLower { ended.give($0) } }
        guard case .done? = begun.waitOrWithdraw(timeout: .seconds(60)),
            let outcome = ended.wait(timeout: .seconds(1_000_000))
        else {
            throw .cannot(notDurable(lower, "queue 0 does not answer"))
        }
        if let error = outcome {
            throw .cannot(notDurable(lower, "its file or directory cannot be made durable: \(error.errno)"))
        }
    }

    /// While all queues are quiet.
    private func adopt(_ tables: AdoptedTables) {
        session.image.adopt(tables)
        device.askAll { $0.adoptTables() }
        session.top.withLock { $0.lower = nil }
    }

    /// Where there are requests nobody waits for them: the next snapshot has to, and does it then.
    private func adoptIfIdle() {
        let image = session.image
        guard session.top.withLock({ $0.lower != nil }), device.isIdle else { return }
        let tables = image.tablesToAdopt()
        try? device.queues.whileQuiet(timeout: LiveDevice.idleTimeout) { adopt(tables) }
    }

    private func notDurable(_ lower: ImageSession.Lower, _ reason: String) -> String {
        "\(lower.names.snapshotPath) is there, and the disk goes on over it, but it is not durable yet: \(reason); a "
            + "flush, or the next snapshot, tries again"
    }
}
