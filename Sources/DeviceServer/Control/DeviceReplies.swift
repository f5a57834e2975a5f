import BlockStorage
import CSupport
import Platform
import QEDEngine
import Ublk

/// What control requests ask of a device that serves, and what may take a while for it: each kind has a thread of its own.
/// Belongs to the server's main thread.
struct DeviceReplies {
    private let flushes: SharedReplies
    private let figures: SharedReplies
    private let pauses: SharedReplies
    private let live: LiveDevice
    private let changes = LiveReplies("another snapshot is being taken, or the disk is put back to one, or its size is changed")
    private let merges = LiveReplies("snapshots are being merged, or something is copied into the image")
    private let progress = MergeProgress()
    private let devicePath: String
    private let features: UblkFeatures
    private let isConfined: Bool

    /// How long a queue's thread may take to say what it has counted, and how long the requests under way to end.
    private static let askTimeout = Duration.seconds(10)

    init(of device: ServedDevice, live: LiveDevice) {
        self.live = live
        features = device.info.features
        let (path, queues, rights, session) = (device.blockDevicePath, device.queues, device.rights, device.session)
        devicePath = path
        isConfined = rights.isConfined
        flushes = SharedReplies(to: "flush the disk") { DeviceReplies.flush(rights) }
        figures = SharedReplies(to: "ask the queues") {
            DeviceReplies.figures(of: queues, path, base: session.baseMembers)
        }
        pauses = SharedReplies(to: "hold the queues") { DeviceReplies.pause(queues) }
    }

    private var all: [SharedReplies] { [flushes, figures, pauses] }

    /// Readable when `takeAnswers` has something; those that are negative are not to be looked at.
    var finished: [Int32] { all.map(\.finished) + [changes.finished, merges.finished] }

    /// - Returns: the answer, where it is there; else it comes from `takeAnswers`.
    func ask(_ request: ControlRequest, _ connection: ControlSocketServer.ConnectionID) -> ControlReply? {
        switch request {
        case .flush: flushes.ask(connection)
        case .stats: figures.ask(connection)
        case .quiesce: pauses.ask(connection)
        // They make, rename and remove files, which a confined server cannot, and its broker does not do for it. The command
        // 'snapshot' does without: SnapshotBetweenServers.
        case .snapshot where isConfined, .rollback where isConfined, .commit where isConfined, .flatten where isConfined:
            .failure(
                .failed,
                "\(devicePath) was added with --untrusted, so its server can change no file but the image's content; remove the "
                    + "device first")
        case .snapshot where live.keepLimitBytes != nil, .rollback where live.keepLimitBytes != nil,
            .commit where live.keepLimitBytes != nil, .flatten where live.keepLimitBytes != nil,
            .resize where live.keepLimitBytes != nil:
            .failure(
                .failed,
                "\(devicePath) was added with --keep-limit, and has nothing but what its base has as well; remove it, and add "
                    + "its image without that")
        case .snapshot(let path, let isOverlay):
            changes.begin(connection) { [live] in DeviceReplies.snapshot(live, path, isOverlay) }
        case .rollback(let path, let force):
            changes.begin(connection) { [live, progress] in
                DeviceReplies.rollback(Rollback(device: live, merges: progress, force: force), path)
            }
        case .commit(let keep, let into):
            merges.begin(connection) { [live, progress] in DeviceReplies.merge(live, progress, keep, into) }
        case .flatten: merges.begin(connection) { [live, progress] in DeviceReplies.flatten(live, progress) }
        case .warm(.recorded) where isConfined:
            .failure(.failed, "\(devicePath) was added with --untrusted, so its server opens no other file; name a range")
        case .warm(let part): merges.begin(connection) { [live, progress] in DeviceReplies.warm(live, progress, part) }
        case .verify: merges.begin(connection) { [live, progress] in DeviceReplies.verify(live, progress) }
        case .commitChange(let change): DeviceReplies.change(progress, change)
        case .resize(let size, let isDifference):
            changes.begin(connection) { [live, features] in
                DeviceReplies.resize(DiskGrowth(device: live, features: features), size, isDifference)
            }
        case .status, .stop, .stopWhenUnused, .leave: preconditionFailure("not answered here")
        }
    }

    /// - Parameter descriptors: those of `finished` that were readable.
    func takeAnswers(_ descriptors: [Int32]) -> [(ControlSocketServer.ConnectionID, ControlReply)] {
        all.filter { descriptors.contains($0.finished) }.flatMap { $0.takeAnswers() }
            + [changes, merges].filter { descriptors.contains($0.finished) }.flatMap { $0.takeAnswers() }
    }

    /// How far a merge is, or a copy into the image, for `status`; null: none is under way.
    var merge: JSONValue {
        switch progress.state {
        case .idle: .null
        case .running(let thousandths, let isPaused): ["done-per-mille": JSONValue(thousandths), "paused": .bool(isPaused)]
        }
    }

    /// What those get whose answers will not come: the disk goes.
    func abandon() -> [(ControlSocketServer.ConnectionID, ControlReply)] {
        let reply = ControlReply.failure(.failed, "\(devicePath) goes, and the request had not ended")
        progress.cancel()
        return all.flatMap { $0.abandon() }.map { ($0, reply) } + changes.finish() + merges.finish()
    }

    private static func change(_ progress: MergeProgress, _ change: ControlRequest.CommitChange) -> ControlReply {
        guard progress.state != .idle else {
            return .failure(.unavailable, "no snapshots are being merged, and nothing is copied into the image")
        }
        switch change {
        case .pause: progress.pause(true)
        case .resume: progress.pause(false)
        case .cancel: progress.cancel()
        }
        return .success(.null)
    }

    // MARK: On threads of their own

    private static func snapshot(_ live: LiveDevice, _ path: String, _ isOverlay: Bool) -> ControlReply {
        let imagePath = live.session.path
        do throws(SnapshotError) {
            let took = try Snapshot(live).take(at: path, isOverlay ? .overlayIsNamed : .snapshotIsNamed)
            return .success([
                "snapshot": .string(isOverlay ? imagePath : path), "image": .string(isOverlay ? path : imagePath),
                "microseconds": JSONValue(took),
            ])
        } catch {
            return error.reply
        }
    }

    private static func rollback(_ rollback: Rollback, _ path: String) -> ControlReply {
        do throws(SnapshotError) {
            let outcome = try rollback.run(to: path)
            return .success([
                "snapshot": .string(outcome.snapshot), "left-count": JSONValue(outcome.left.count),
                "left": listed(outcome.left),
            ])
        } catch {
            return error.reply
        }
    }

    /// As many paths as a reply has room for.
    private static func listed(_ paths: [String]) -> JSONValue {
        var listedBytes = 0
        return .array(
            paths.prefix { name in
                listedBytes += name.utf8.count + 8
                return listedBytes <= ControlReply.limitBytes / 4
            }.map { .string($0) })
    }

    private static func resize(_ growth: DiskGrowth, _ size: UInt64, _ isDifference: Bool) -> ControlReply {
        do throws(GrowthError) { return .success(["size": JSONValue(try growth.run(size, isDifference: isDifference))]) } catch {
            return error.reply
        }
    }

    private static func merge(_ live: LiveDevice, _ progress: MergeProgress, _ keep: Int, _ into: String?) -> ControlReply {
        do throws(MergeError) {
            let merge = LayerMerge(device: live, progress: progress)
            let (path, removed) = try merge.run(keeping: keep, into: into.map { .file(path: $0) } ?? .lowest)
            return .success([
                "into": .string(path), "removed-count": JSONValue(removed.count), "removed": listed(removed),
            ])
        } catch {
            return error.reply
        }
    }

    private static func flatten(_ live: LiveDevice, _ progress: MergeProgress) -> ControlReply {
        do throws(FlatteningError) {
            let forgotten = try ChainFlattening(device: live, progress: progress).run()
            return .success([
                "image": .string(live.session.path), "forgotten-count": JSONValue(forgotten.count),
                "forgotten": listed(forgotten),
            ])
        } catch {
            return error.reply
        }
    }

    private static func warm(_ live: LiveDevice, _ progress: MergeProgress, _ part: ControlRequest.WarmPart) -> ControlReply {
        let sizeBytes = live.session.image.sizeBytes
        let ranges: [Range<UInt64>]
        switch part {
        case .range(let offset, let length):
            let (end, overflow) = offset.addingReportingOverflow(length ?? (sizeBytes - min(offset, sizeBytes)))
            guard !overflow, offset < end || sizeBytes == offset, end <= sizeBytes else {
                return .failure(.badRequest, "there is no such range of the disk, which has \(sizeBytes) bytes")
            }
            ranges = [offset..<end]
        case .recorded(let path):
            do throws(ReadRecordingError) {
                let recording = try ReadRecording(ofFileAt: path)
                try recording.expect(diskSizeBytes: sizeBytes, path: path)
                ranges = recording.ranges
            } catch {
                return .failure(.failed, "\(error)")
            }
        }
        progress.begin()
        defer { progress.end() }
        do throws(WarmingError) {
            let bytes = try Warming(device: live, progress: progress, isBackground: false).run(ranges)
            return .success(["image": .string(live.session.path), "fetched": JSONValue(bytes)])
        } catch {
            return error.reply
        }
    }

    private static func verify(_ live: LiveDevice, _ progress: MergeProgress) -> ControlReply {
        progress.begin()
        defer { progress.end() }
        do throws(WarmingError) {
            let found = try KeptVerification(device: live, progress: progress).run()
            return .success([
                "image": .string(live.session.path), "compared": JSONValue(found.comparedBytes),
                "first-difference": found.firstDifference.map { JSONValue($0) } ?? .null,
            ])
        } catch {
            return error.reply
        }
    }

    /// Of a block device: with what its page cache has, and those of its partitions, which are others. So the kernel is asked
    /// and not the engine, which a flush reaches as the request that this becomes.
    private static func flush(_ rights: any DeviceRights) -> ControlReply {
        let failures = rights.flushDisk()
        return failures.first.map { .failure(.failed, $0) } ?? .success(.null)
    }

    /// What the queues have counted, each and together.
    /// - Parameter base: what is said of the base elsewhere.
    static func figures(
        of queues: DeviceQueues<EngineTarget<FileStorage>>, _ path: String, base: [JSONValue.Member] = []
    ) -> ControlReply {
        do throws(QueueSilence) {
            let counted = try queues.ask(timeout: askTimeout) { target, figures in
                QueueFigures(requests: figures, engine: target.statistics, cache: target.cacheUse)
            }
            guard case .object(let figures) = QueueFigures.json(counted, device: path) else {
                preconditionFailure("figures without names")
            }
            return .success(.object(figures + base))
        } catch {
            return .failure(.unavailable, "\(error)")
        }
    }

    /// Ends what is under way on all queues, and lets them go on: how long requests would wait for whatever needs that.
    static func pause(_ queues: DeviceQueues<EngineTarget<FileStorage>>) -> ControlReply {
        let start = cs_monotonic_nanoseconds()
        do throws(QueueSilence) { try queues.whileQuiet(timeout: askTimeout) {} } catch {
            return .failure(.unavailable, "\(error)")
        }
        return .success(["microseconds": JSONValue((cs_monotonic_nanoseconds() - start) / 1000)])
    }
}
