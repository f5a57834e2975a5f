import BlockStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// Snapshots beneath a machine's image that are becoming one: what the upper ones have is copied into the lowest, then the
/// image's header names that one, then the image adopts the shorter chain, and the files between are gone.
final class SimulatedMerge {
    enum Phase: Equatable {
        case copying
        /// The target is durable, and has everything.
        case copied
        case naming
        /// The image's header names the target, durably.
        case named
        /// Something has failed: the files stay as they are.
        case failed
    }

    /// How many of the snapshots go into the one beneath them.
    let removedCount: Int
    let target: SimulatedDisk
    /// By which the image names the target from then on.
    let name: String
    var phase = Phase.copying
    var tables: AdoptedTables?
    var queue: EngineQueue<SimulatedStorage>?

    init(removedCount: Int, target: SimulatedDisk, name: String) {
        self.removedCount = removedCount
        self.target = target
        self.name = name
    }
}

extension FrozenLayer {
    /// The first of the clusters of that size that something of the layer decides, from one on.
    func decides(cluster: Int, sectors: Int) -> Bool { walk.place(ofSector: cluster * sectors) != .backing }
}

extension Machine {
    /// What the image in a disk's bytes lies over, of all that there is.
    /// - Parameter target: what is left of the file that is being written, where one is.
    /// - Throws: where it names what has been taken away.
    func sealedLayers(under disk: SimulatedDisk, target left: SimulatedDisk?) throws -> [FrozenLayer] {
        let name = Machine.backingName(of: disk)
        if name.isEmpty, flattening != nil { return [] }
        if name == SimulatedForgetting.bottomName, forgetting != nil { return [] }
        guard let merge else {
            guard name == topName else { throw Violation("the image names \(name), which is not there any more") }
            return sealed
        }
        var layers = sealed
        if let left {
            let frozen = FrozenLayer(left)
            if let problem = frozen.walk.problem { throw Violation("what snapshots are merged into: \(problem)") }
            layers[merge.removedCount] = frozen
        }
        if name == merge.name { return Array(layers[merge.removedCount...]) }
        guard name == topName else { throw Violation("the image names \(name), which never was") }
        return layers
    }

    /// What the image lies over now.
    func sealedNow() throws -> [FrozenLayer] { try sealedLayers(under: disk, target: merge?.target) }

    static func backingName(of disk: SimulatedDisk) -> String {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = bytes.withUnsafeMutableBytes { buffer in
            buffer.baseAddress.map { disk.read(into: $0, byteCount: buffer.count, at: 0) } ?? 0
        }
        guard let header = try? QEDHeader(parsing: Array(bytes[..<count]), fileSizeBytes: disk.length),
            let range = header.backingFileNameRange, range.endFileOffset <= UInt64(count)
        else { return "" }
        return String(decoding: bytes[Int(range.fileOffset)..<Int(range.endFileOffset)], as: UTF8.self)
    }

    /// Begins to merge the upper snapshots into one beneath them, in the background.
    /// - Parameters:
    ///   - scene: for what lies at the bottom.
    ///   - windows: ranges of sectors: nothing is anywhere else.
    func beginMerge(removing count: Int, scene: Scene, windows: [Range<Int>]) throws {
        precondition(merge == nil && lower == nil && count > 0 && count < sealed.count, "nothing to merge")
        // Not that of an earlier one, by which the image may still call what lies beneath it.
        let number = random.next()
        let merge = SimulatedMerge(removedCount: count, target: sealed[count].disk, name: Machine.longName + "\(number)")
        let upper = Array(sealed[..<count])
        let sectors = Int(scene.clusterSizeBytes / 512)
        var requests: [BlockRequest] = []
        for window in windows {
            var cluster = window.lowerBound / sectors
            while cluster * sectors < window.upperBound {
                if upper.contains(where: { $0.decides(cluster: cluster, sectors: sectors) }) {
                    requests.append(Machine.request(ofCluster: cluster, sectors, upper, scene))
                }
                cluster += 1
            }
        }
        self.merge = merge
        io.unserved = merge.target
        try openMerge(merge, requests)
    }

    /// As long as some are: it does not fit into the header's sector.
    private static let longName = "merged-into-" + String(repeating: "a", count: 420) + "-"

    /// All of a cluster, as the upper layers show it.
    private static func request(ofCluster cluster: Int, _ sectors: Int, _ upper: [FrozenLayer], _ scene: Scene) -> BlockRequest {
        let count = min(sectors, Int(scene.imageSizeBytes / 512) - cluster * sectors)
        let values = (0..<count).map { scene.value(cluster * sectors + $0, through: upper) }
        let (start, length) = (UInt64(cluster * sectors) * 512, UInt64(count) * 512)
        if values.allSatisfy({ $0 == 0 }) { return BlockRequest(.writeZeroes, deviceOffset: start, byteCount: length) }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: count * 512, alignment: 4096)
        for (index, value) in values.enumerated() { SectorValue.fill(buffer + index * 512, value) }
        return BlockRequest(.write, deviceOffset: start, byteCount: length, buffer: buffer)
    }

    /// Opens the target beside the device's queues, and writes to it.
    private func openMerge(_ merge: SimulatedMerge, _ requests: [BlockRequest]) throws {
        let storage = mergeStorage(merge)
        let members = try mergeLayers(merge)
        // SAFETY: a simulation has one thread.
        nonisolated(unsafe) let state = merge
        runInBackground {
            defer { for request in requests { request.buffer?.deallocate() } }
            do {
                let image = try await Image.open(chain: members, storages: storage, options: ImageOptions(cacheBytes: 1 << 16))
                let queue = self.makeMergeQueue(image, storage)
                state.queue = queue
                for request in requests {
                    guard await queue.perform(own: request) >= 0 else { throw Errno.ioError }
                }
                try await queue.close()
                state.tables = image.sealedTables()
                state.phase = .copied
            } catch {
                state.phase = .failed
            }
        }
    }

    /// The image's header is to name the target from now on.
    func nameMergeTarget() throws {
        guard let merge, merge.phase == .copied else { preconditionFailure("a target that has not got everything") }
        let name = try BackingFileName(Array(merge.name.utf8))
        merge.phase = .naming
        // SAFETY: a simulation has one thread.
        nonisolated(unsafe) let state = merge
        let hasBegun = queues[0].engine.beginOwnWork { queue in
            do throws(HeaderChangeError) {
                try await queue.changeHeader(.backingFile(name, isRaw: false))
                state.phase = .named
            } catch {
                state.phase = .failed
            }
        }
        precondition(hasBegun, "two headers are changed at once")
    }

    /// The image has the shorter chain, and the files between are taken away. While all queues are quiet.
    func finishMerge() throws {
        guard let merge, let image, let tables = merge.tables, merge.phase == .named, isQuiet else {
            preconditionFailure("a merge that is not at its end")
        }
        image.replaceChain(try NextChain.of(image, without: 1..<(1 + merge.removedCount), over: tables))
        sealed.removeSubrange(..<merge.removedCount)
        sealed[0] = FrozenLayer(merge.target)
        topName = merge.name
        endMergeQueue()
        self.merge = nil
        replaceEngines(for: image)
    }
}
