import BlockStorage
import IOURing
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// Copies what the upper files of a chain have into one that they lie over, which then holds what the uppermost showed.
///
/// While the chain is read by others: nothing of the file that is written can be seen where a file above has something, and
/// nothing else is written; what is visible of it stays, and so does what lies beneath. Interrupted at any point whoever reads
/// the uppermost reads what it read before, and it can be done again. Those between, and the target itself, do not: a mark in
/// its header says so from before anything is copied (`MergeMark`), and the caller takes it away when nothing names them.
public struct LayerCopy {
    private let upper: [LayerFile]
    private let target: ImageFile
    private let beneath: [LayerFile]
    private let targetPath: String

    /// What an earlier copy, which did not end, has left in the target, durably: where it was, and how many of these files lie
    /// over those that it had. Nil: nothing, or nothing that is known.
    private let earlier: Earlier?

    public struct Earlier {
        public var endBytes: UInt64
        public var newFiles: Int

        public init(endBytes: UInt64, newFiles: Int) {
            self.endBytes = endBytes
            self.newFiles = newFiles
        }
    }

    /// What is done at once, between two looks at whether to go on.
    private static let stepBytes: UInt64 = 32 << 20
    /// What is copied between two syncs of the target, after which it need not be copied again.
    private static let durableBytes: UInt64 = 64 << 20
    private static let cacheBytes = 4 << 20

    /// - Parameters:
    ///   - chain: open: all QED images down to the target; nobody writes to any of them.
    ///   - index: of the target in it, 1 or more.
    ///   - opened: the target, to be written.
    ///   - earlier: of a disk of the same size, into this target, from the last of these files; nothing else has been written to
    ///     it since.
    public init(chain: [LayerFile], into index: Int, opened: ImageFile, after earlier: Earlier? = nil) {
        precondition(index > 0 && index < chain.count, "nothing to be copied")
        precondition(earlier.map { $0.newFiles < index } ?? true, "an earlier copy of nothing")
        self.earlier = earlier
        upper = Array(chain[..<index])
        target = opened
        targetPath = chain[index].file.path
        beneath = Array(chain[(index + 1)...])
    }

    /// Blocks until it is durable and the target is marked as clean.
    /// - Parameters:
    ///   - isDurable: called with the end of what need not be copied again.
    ///   - goesOn: called again and again, with the share that is done; false: no more. It may block.
    /// - Returns: the target as a file that lies beneath others; nil where it was told not to go on.
    public func run(
        isDurable: (UInt64) -> Void = { _ in }, _ goesOn: (Double) -> Bool
    ) throws(ImageToolError) -> AdoptedTables? {
        guard case .qed(let newest, _) = upper[0].layer else { preconditionFailure("a raw file above another one") }
        try MergeMark.put(on: target)
        let sizeBytes = newest.imageSizeBytes
        var header: QEDHeader
        do throws(ImageReadError) { header = try ImageHeader(reading: target).header } catch { throw .read(error) }
        let oldSizeBytes = header.imageSizeBytes
        if oldSizeBytes < sizeBytes {
            do throws(QEDFormatError) { try header.setImageSize(bytes: sizeBytes) } catch {
                throw .refused(path: targetPath, reason: "cannot have the size of what lies over it: \(error.fault)")
            }
        }
        let (source, disk, image) = try open(header)
        var isDone = false
        do throws(ImageToolError) {
            // What is behind the end of the one or the other reads as zeros; an earlier copy has begun with that.
            if oldSizeBytes != sizeBytes, earlier == nil {
                let (first, last) = (min(oldSizeBytes, sizeBytes), max(oldSizeBytes, sizeBytes))
                try disk.perform([BlockRequest(.writeZeroes, deviceOffset: first, byteCount: last - first)])
            }
            isDone = try copy(source, disk, sizeBytes, isDurable, goesOn)
        } catch {
            source.abandon()
            try? disk.close()
            throw error
        }
        source.abandon()
        try disk.close()
        guard isDone else { return nil }
        if oldSizeBytes < sizeBytes { try write(header) }
        return image.sealedTables()
    }

    private func open(_ header: QEDHeader) throws(ImageToolError) -> (Disk, Disk, Image) {
        do {
            let source = Disk(
                try LocalEngine(
                    chain: upper, options: ImageOptions(isReadOnly: true, cacheBytes: LayerCopy.cacheBytes),
                    depth: Disk.usualDepth,
                    largestRequestBytes: Disk.largestRequestBytes),
                path: upper[0].file.path)
            let layer = Layer.qed(header: header, fileSizeBytes: try target.currentSizeBytes())
            var options = ImageOptions(cacheBytes: LayerCopy.cacheBytes)
            options.keepsMergeMark = true
            let engine = try LocalEngine(
                chain: [LayerFile(file: target, layer: layer)] + beneath, options: options,
                depth: Disk.usualDepth, largestRequestBytes: Disk.largestRequestBytes)
            return (source, Disk(engine, path: targetPath), engine.image)
        } catch let error as ImageFileError {
            throw .read(.file(error))
        } catch {
            throw ImageToolError(opening: targetPath, error)
        }
    }

    private func copy(
        _ source: Disk, _ disk: Disk, _ sizeBytes: UInt64, _ isDurable: (UInt64) -> Void, _ goesOn: (Double) -> Bool
    ) throws(ImageToolError) -> Bool {
        let map = try DiskMap(chain: upper)
        let copy = DiskCopy(from: source, to: disk, holes: .areMade)
        let last = upper.count - 1
        let (earlierEnd, newFiles) = (min(earlier?.endBytes ?? 0, sizeBytes), earlier?.newFiles ?? 0)
        var position: UInt64 = 0
        var unsyncedBytes: UInt64 = 0
        while position < sizeBytes {
            guard goesOn(Double(position) / Double(sizeBytes)) else { return false }
            // A step lies before the end of the earlier copy, or behind it.
            let limit = position < earlierEnd ? earlierEnd : sizeBytes
            let end = min(position + LayerCopy.stepBytes, limit)
            let isThere = end <= earlierEnd
            try copy.run(position..<end, map: map, progress: nil) { extent in
                let isUppers = extent.kind != .unallocated || extent.depth < last
                guard isUppers, !isThere || extent.depth < newFiles else { return false }
                unsyncedBytes += extent.length
                return true
            }
            position = end
            if unsyncedBytes >= LayerCopy.durableBytes, position > earlierEnd {
                try disk.perform([BlockRequest(.flush)])
                isDurable(position)
                unsyncedBytes = 0
            }
        }
        return goesOn(1)
    }

    /// The target has its new size: what that shows reads as zeros, durably.
    private func write(_ header: QEDHeader) throws(ImageToolError) {
        try ImageStructure.change(target, path: targetPath) { structure in
            structure.header = header
            try await structure.writeHeader()
            try await structure.storage.sync()
        }
    }
}

extension ImageStructure where S == FileStorage {
    /// Changes the structure of an image that is open to be written, and that nobody else changes. Blocks.
    static func change(
        _ file: ImageFile, path: String, _ body: @escaping @Sendable (inout ImageStructure<FileStorage>) async throws -> Void
    ) throws(ImageToolError) {
        do {
            let loop = try RingLoop(entries: 64, completionEntries: 256)
            defer { loop.close() }
            let (header, storage) = (try ImageHeader(reading: file).header, file.storage(on: loop.ring))
            let sizeBytes = try file.currentSizeBytes()
            try loop.run {
                var structure = ImageStructure(storage: storage, header: header, fileSizeBytes: sizeBytes)
                try await body(&structure)
            }
        } catch let error as ImageReadError {
            throw .read(error)
        } catch let error as ImageFileError {
            throw .read(.file(error))
        } catch let error as Errno {
            throw .noRing(error)
        } catch {
            throw ImageToolError(path: path, structural: error)
        }
    }
}

/// Points an image at another QED image as its backing file, durably, while others read it: what they read must be the same
/// either way.
public enum BackingFileSwitch {
    /// - Parameter file: to be written; nobody else changes it.
    public static func set(_ file: ImageFile, to name: BackingFileName) throws(ImageToolError) {
        let path = file.path
        try ImageStructure.change(file, path: path) { structure in
            try await structure.setBackingFile(name, isRaw: false, path: path)
        }
    }
}
