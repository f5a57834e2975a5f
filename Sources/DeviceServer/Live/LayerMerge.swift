import BlockStorage
import Glibc
import ImageTools
import Logging
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// Snapshots beneath a device's image become one file, while the device works: what the upper ones have is copied into the
/// lowest, the file above them is pointed at that one, and they are taken away.
///
/// Killed or without power between any two steps the image reads as it did: until the header of the file above names the target,
/// the others are there, and hide in it whatever is half done; from then on the target has everything, durably. Doing it
/// again ends what was begun.
struct LayerMerge: Sendable {
    let device: LiveDevice
    let progress: MergeProgress
    private var session: ImageSession { device.session }

    enum Target: Equatable, Sendable {
        /// The lowest one in the directory of the newest snapshot: what lies elsewhere is others' as well.
        case lowest
        /// That of the chain.
        case file(path: String)
    }

    /// What is to become one: files of the chain, the newest first; the last is the target.
    private struct Plan {
        var files: [LayerFile]
        var beneath: [LayerFile]
        var removed: MergedFiles {
            MergedFiles(files: files.dropLast().map { .init(path: $0.file.path, file: $0.file.identity) })
        }
        var target: LayerFile { files[files.count - 1] }
    }

    /// - Parameter keep: so many of the newest snapshots stay as they are.
    /// - Returns: the path of the target, and of the files that are in it now: none where there were no more than are to stay.
    func run(keeping keep: Int, into target: Target) throws(MergeError) -> (into: String, removed: [String]) {
        progress.begin()
        defer { progress.end() }
        guard let plan = try device.changing({ () throws(MergeError) in try self.plan(keeping: keep, into: target) }) else {
            return (session.chain.last?.source.path ?? session.path, [])
        }
        let path = plan.target.file.path
        guard plan.files.count > 1 else {
            // Nothing lies between it and the image: what was begun is over.
            if keep == 0, try isMarked(plan.target.file) { try removeMark(open(plan.target), path) }
            return (path, [])
        }
        var kept: [ImageFile] = []
        defer { for file in kept { file.letOthersRead() } }
        for layer in plan.files {
            do throws(ImageFileError) { try layer.file.keepForItself() } catch { throw .isNeeded("\(error)") }
            kept.append(layer.file)
        }
        try refuseOverlays(of: plan)
        let target = try open(plan.target)
        // One that another merge has left, of more files than these perhaps, stays unless these are all.
        let wasMarked = try isMarked(target)
        let tables = try copy(plan, to: target, wasMarked: wasMarked)
        try device.changing { () throws(MergeError) in try finish(plan, tables) }
        if keep == 0 || !wasMarked { try removeMark(target, path) }
        return (path, plan.removed.files.map(\.path))
    }

    // MARK: - What is merged

    private func settle() throws(MergeError) {
        do throws(SnapshotError) { try Snapshot(device).settle() } catch { throw .cannot("\(error)") }
    }

    /// - Returns: nil: no file is there beside those that are to stay.
    private func plan(keeping keep: Int, into target: Target) throws(MergeError) -> Plan? {
        try settle()
        let chain = session.chain
        guard !session.image.isReadOnly else { throw .cannot("\(session.path) is only read; nothing is changed beneath it") }
        let first = 1 + keep
        guard chain.count > 1 else {
            if keep > 0, case .lowest = target { return nil }
            throw .cannot("\(session.path) lies over no other file, so there is nothing to merge")
        }
        let last: Int
        switch target {
        case .file(let path):
            let wanted = FileIdentity(ofFileAt: path)
            guard let index = chain.firstIndex(where: { $0.source.identity == wanted }), index > 0 else {
                throw .cannot("\(path): is not beneath \(session.path); 'qed-ublk snapshots' lists what is")
            }
            guard index >= first else { throw .cannot("\(path): is one of the \(keep) that are to stay") }
            last = index
        case .lowest:
            guard chain.count > first else { return nil }
            let directory = LayerMerge.directory(of: chain[first].file.path)
            let beside = chain[first...].prefix {
                $0.isQED && LayerMerge.directory(of: $0.file.path) == directory
            }
            last = max(first, beside.endIndex - 1)
        }
        guard chain[first...last].allSatisfy(\.isQED) else {
            throw .cannot(
                "\(chain[last].source.path): is raw, and a device that works merges into images only; remove the device, "
                    + "and run 'qed-ublk commit' on its image")
        }
        return Plan(files: Array(chain[first...last]), beneath: Array(chain[(last + 1)...]))
    }

    private static func directory(of path: String) -> String { FilePath(path).removingLastComponent().string }

    /// Whoever has one of the files open has kept us from locking it; here are those that nobody has open.
    private func refuseOverlays(of plan: Plan) throws(MergeError) {
        var files: [FileIdentity: String] = [:]
        for layer in plan.files { files[layer.file.identity] = layer.file.path }
        let found: (overlay: String, file: String)?
        do throws(OverlaySearch.Doubt) {
            found = try OverlaySearch.overlay(
                of: files, besides: Set(session.chain.map(\.source.identity)),
                in: Set(plan.files.map { LayerMerge.directory(of: $0.file.path) }))
        } catch {
            throw .cannot("cannot tell whether \(error.path) lies over what is to change: \(error.errno); nothing was changed")
        }
        guard let found else { return }
        throw .isNeeded(
            "\(found.file): \(found.overlay) lies over it, and would not find in it what it has now; leave it (--keep, "
                + "--into), or remove that image")
    }

    // MARK: - The copy

    /// A file of the chain, to be written.
    private func open(_ layer: LayerFile) throws(MergeError) -> ImageFile {
        let opened: ImageFile
        do throws(ImageFileError) {
            // Its lock is the reader's.
            opened = try ImageFile(
                path: layer.file.path, access: .readWrite, caching: .buffered, lock: nil, policy: device.policy)
        } catch {
            throw .cannot("\(error)")
        }
        guard opened.identity == layer.file.identity else { throw .cannot("\(opened.path) was replaced meanwhile") }
        return opened
    }

    private func isMarked(_ file: ImageFile) throws(MergeError) -> Bool {
        do throws(ImageReadError) { return try ImageHeader(reading: file).header.hasUnfinishedMerge } catch {
            throw .cannot("\(error)")
        }
    }

    private func removeMark(_ file: ImageFile, _ path: String) throws(MergeError) {
        do throws(ImageToolError) { try MergeMark.remove(from: file) } catch {
            throw .cannot("\(path) has everything, but says that something is missing: \(error); run it again")
        }
    }

    private func copy(_ plan: Plan, to opened: ImageFile, wasMarked: Bool) throws(MergeError) -> AdoptedTables {
        try letTargetGrow(plan)
        let chain: [LayerFile]
        do throws(LayerFileError) {
            chain = try (plan.files + plan.beneath).map { layer throws(LayerFileError) in try layer.asItIsNow() }
        } catch {
            throw .cannot("\(error)")
        }
        guard case .qed(let newest, _) = chain[0].layer else { preconditionFailure("a raw file above another one") }
        let sizeBytes = newest.imageSizeBytes
        let earlier = try earlierCopy(of: plan, sizeBytes: sizeBytes, isMarked: wasMarked)
        let tables: AdoptedTables?
        do throws(ImageToolError) {
            let copy = LayerCopy(chain: chain, into: plan.files.count - 1, opened: opened, after: earlier)
            let files = plan.files.map(\.file.identity)
            tables = try copy.run(
                isDurable: { [device] end in
                    // Where it cannot be said, more is copied once more.
                    try? device.note { $0.unfinishedMerge = UnfinishedMerge(files: files, sizeBytes: sizeBytes, endBytes: end) }
                }, progress.goesOn)
        } catch {
            throw .cannot("\(error); nothing was changed that can be seen")
        }
        guard let tables else { throw .cancelled }
        return tables
    }

    /// Where a copy of the same files, or of the same but the newest, has been when it was cut short. The target has its mark
    /// still; whoever else has written to it has taken that away.
    private func earlierCopy(
        of plan: Plan, sizeBytes: UInt64, isMarked: Bool
    ) throws(MergeError) -> LayerCopy.Earlier? {
        guard let unfinished = device.registry.record(of: device.record.deviceID)?.unfinishedMerge else { return nil }
        if isMarked, let newFiles = unfinished.newFiles(in: plan.files.map(\.file.identity), sizeBytes: sizeBytes) {
            device.log.notice(
                "an earlier merge into \(plan.target.file.path) was cut short; its first \(unfinished.endBytes) bytes are there")
            return LayerCopy.Earlier(endBytes: unfinished.endBytes, newFiles: newFiles)
        }
        // This copy goes over what that one has left.
        do throws(RegistryError) { try device.note { $0.unfinishedMerge = nil } } catch { throw .cannot("\(error)") }
        return nil
    }

    /// Where clusters have different sizes a part of one that the copy makes in the target may be seen at once. It lies behind
    /// the end that the file had when it was opened.
    private func letTargetGrow(_ plan: Plan) throws(MergeError) {
        try device.changing { () throws(MergeError) in
            // A snapshot that was taken since the plan was made may not have adopted its tables yet.
            try settle()
            let chain = session.chain
            guard let index = chain.firstIndex(where: { $0.source.identity == plan.target.file.identity }) else {
                throw .cannot("\(plan.target.file.path) is not beneath \(session.path) any more")
            }
            let next: NextChain
            do throws(Errno) { next = try NextChain.of(session.image, layerGrows: index) } catch {
                throw .cannot("no memory for the tables of \(session.path): \(error)")
            }
            do throws(QueueSilence) { try device.whileQuiet { device.replaceChain(next, chain) } } catch {
                throw .busy("\(error)")
            }
        }
    }

    // MARK: - The end

    private func finish(_ plan: Plan, _ tables: AdoptedTables) throws(MergeError) {
        try settle()
        let chain = session.chain
        guard let first = chain.firstIndex(where: { $0.source.identity == plan.files[0].file.identity }), first > 0,
            chain[first...].prefix(plan.files.count).map(\.source.identity) == plan.files.map(\.file.identity)
        else { throw .cannot("the files beneath \(session.path) are others by now; run it again") }
        let last = first + plan.files.count - 1
        let next: NextChain
        do throws(Errno) { next = try NextChain.of(session.image, without: first..<last, over: tables) } catch {
            throw .cannot("no memory for the tables of \(session.path): \(error)")
        }
        var files = chain
        files[last] = LayerFile(file: plan.target.file, layer: tables.layer)
        files.removeSubrange(first..<last)
        do throws(RegistryError) {
            try device.note { record in
                record.nextBackingFiles = files.dropFirst().map(\.source.identity)
                record.mergedFiles = plan.removed.files
                record.unfinishedMerge = nil
            }
        } catch {
            throw .cannot("\(error)")
        }
        try point(chain[first - 1], isImage: first == 1, at: plan.target.file)
        let (device, session, removed) = (device, session, plan.removed)
        let failure = Lock<Errno?>(nil)
        let replacement = ChainReplacement(next: next, files: files) {
            do throws(Errno) { try removed.remove() } catch { failure.withLock { [error] in $0 = error } }
            try? device.note { record in
                record.backingFiles = session.backingFiles
                record.nextBackingFiles = nil
                record.mergedFiles = []
            }
        }
        do throws(QueueSilence) { try device.replaceChainWhenQuiet(replacement) } catch {
            throw .busy(
                "\(chain[first - 1].file.path) lies over \(plan.target.file.path) now, which has everything, but the device "
                    + "still reads the files between: \(error); run it again")
        }
        if let error = failure.withLock({ $0 }) {
            throw .cannot("\(plan.target.file.path) has everything, but what it has taken in is not removed for good: \(error)")
        }
    }

    /// From now on the chain goes from the one to the other.
    private func point(_ layer: LayerFile, isImage: Bool, at target: ImageFile) throws(MergeError) {
        let file = layer.file
        let name: BackingFileName
        do throws(QEDFormatError) {
            name = try BackingFileName(storing: SnapshotNames.backingName(of: target.path, from: file.path))
        } catch {
            throw .cannot("\(target.path): \(error.fault)")
        }
        if isImage {
            do throws(OwnWorkError) {
                try device.onFirstQueue(changing: { queue throws(HeaderChangeError) in
                    try await queue.changeHeader(.backingFile(name, isRaw: false))
                })
            } catch {
                switch error {
                case .noAnswer: throw .busy("queue 0 does not answer")
                case .header(let error): throw .cannot("\(file.path): \(error)")
                }
            }
            return
        }
        let opened = try open(layer)
        do throws(ImageToolError) { try BackingFileSwitch.set(opened, to: name) } catch { throw .cannot("\(error)") }
    }
}

/// Why snapshots were not merged, in a sentence.
enum MergeError: Error, CustomStringConvertible {
    case cannot(String)
    /// Somebody else needs one of the files.
    case isNeeded(String)
    case busy(String)
    case cancelled

    var description: String {
        switch self {
        case .cannot(let sentence), .isNeeded(let sentence), .busy(let sentence): sentence
        case .cancelled: "the merge was cancelled; nothing was changed that can be seen"
        }
    }

    var reply: ControlReply {
        switch self {
        case .cannot, .cancelled: .failure(.failed, description)
        case .isNeeded, .busy: .failure(.busy, description)
        }
    }
}
