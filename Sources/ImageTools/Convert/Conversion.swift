import BlockStorage
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// Copies a disk into a new file of another format, or of the same without what is unused.
public struct Conversion: Sendable {
    public var source: String
    public var sourceFormat: DiskFormat
    public var target: String
    public var targetFormat: DiskFormat
    /// Of a new image.
    public var geometry = QEDGeometry.standard
    /// Whether to make an image that QEMU would refuse to open.
    public var allowsWhatQEMUCannotOpen = false
    /// Whether an existing file may be replaced.
    public var replaces = false
    /// Write into the target that is there, instead of into a new file.
    public var keepsTarget = false
    /// Read the target back and compare it before it gets its name.
    public var verifies = false
    /// Read the source without locks.
    public var sharing = false
    /// For the files that images name.
    public var policy = BackingPolicy.plainFiles
    /// Requests under way at once.
    public var depth = Disk.usualDepth

    /// As `source`: a raw disk that comes through standard input, into a new image. As `target`: one that goes through standard
    /// output.
    public static let standardStream = "-"

    public init(source: String, sourceFormat: DiskFormat, target: String, targetFormat: DiskFormat) {
        self.source = source
        self.sourceFormat = sourceFormat
        self.target = target
        self.targetFormat = targetFormat
    }

    /// Blocks until the copy is durable. A new file has its name only then; whatever is thrown, an existing file of
    /// that name is as it was. Only a target that is kept may have been written in part.
    /// - Returns: the size of the disk that was copied, in bytes.
    @discardableResult
    public func run(progress: (@Sendable (Double) -> Void)? = nil) throws(ImageToolError) -> UInt64 {
        if let stream = StreamTarget(target), !keepsTarget { return try send(to: stream, progress) }
        if source == Conversion.standardStream { return try copyStream() }
        let source = try Disk(
            path: source, format: sourceFormat, isReadOnly: true, sharing: sharing, depth: depth, policy: policy)
        if let identity = FileIdentity(ofFileAt: target), source.identities.contains(identity) {
            throw .refused(path: target, reason: "is the source or one of its backing files; choose another target")
        }
        if keepsTarget { try copyIntoExisting(source, progress) } else { try copyIntoNew(source, progress) }
        try source.close()
        return source.sizeBytes
    }

    private func copyIntoExisting(_ source: Disk, _ progress: (@Sendable (Double) -> Void)?) throws(ImageToolError) {
        let disk = try Disk(
            path: target, format: targetFormat, isReadOnly: false, caching: targetCaching(source), depth: depth,
            policy: policy)
        guard disk.sizeBytes >= source.sizeBytes else {
            throw .refused(
                path: target,
                reason: "its disk has \(disk.sizeBytes) bytes, and the source \(source.sizeBytes); resize it first")
        }
        let map = try source.map()
        try DiskCopy(from: source, to: disk, holes: .areMade).run(0..<source.sizeBytes, map: map, progress: progress)
        try disk.close()
        if verifies { try verify(source, target, shownAs: target) }
    }

    private func copyIntoNew(_ source: Disk, _ progress: (@Sendable (Double) -> Void)?) throws(ImageToolError) {
        let content: (firstBytes: [UInt8], sizeBytes: UInt64)
        switch targetFormat {
        case .raw: content = ([], source.sizeBytes)
        case .qed: content = try emptyImage(ofSizeBytes: source.sizeBytes)
        }
        let file = try OutputFile(path: target, replaces: replaces)
        try file.fill(content.firstBytes, sizeBytes: content.sizeBytes)
        let disk = try Disk(
            path: file.workingPath, shownAs: target, format: targetFormat, isReadOnly: false,
            caching: targetCaching(source), depth: depth)
        let map = try source.map()
        try DiskCopy(from: source, to: disk, holes: .areThere).run(0..<source.sizeBytes, map: map, progress: progress)
        try disk.close()
        if verifies { try verify(source, file.workingPath, shownAs: target) }
        try file.publish()
    }

    private func send(
        to target: StreamTarget, _ progress: (@Sendable (Double) -> Void)?
    ) throws(ImageToolError) -> UInt64 {
        guard targetFormat == .raw, self.source != Conversion.standardStream, !replaces, !verifies else {
            throw .refused(
                path: target.name,
                reason: "takes a raw disk, once and in order; use it with -O raw and a file as the source, "
                    + "without --force and --verify")
        }
        let source = try Disk(
            path: source, format: sourceFormat, isReadOnly: true, sharing: sharing, depth: depth, policy: policy)
        let stream = try target.open()
        defer { try? stream.close() }
        if let identity = try? FileIdentity(descriptor: stream.rawValue), source.identities.contains(identity) {
            throw .refused(path: target.name, reason: "is the source or one of its backing files; choose another target")
        }
        try DiskStream(from: source, to: stream, of: target).run(progress: progress)
        try source.close()
        return source.sizeBytes
    }

    /// The image is made for the longest disk that its tables can map, and gets its size when the stream has ended.
    private func copyStream() throws(ImageToolError) -> UInt64 {
        precondition(targetFormat == .qed && !keepsTarget && !verifies, "a pipe is read once, into a new image")
        let content = try emptyImage(ofSizeBytes: geometry.maximumImageSizeBytes)
        let file = try OutputFile(path: target, replaces: replaces)
        try file.fill(content.0, sizeBytes: content.1)
        let disk = try Disk(
            path: file.workingPath, shownAs: target, format: .qed, isReadOnly: false, caching: .directWherePossible,
            depth: depth)
        let sizeBytes = try StreamCopy(from: .standardInput, called: "standard input", to: disk).run()
        try disk.close()
        // An image that was closed in good order has the header of an empty one.
        try file.write(try emptyImage(ofSizeBytes: sizeBytes).0)
        try file.publish()
        return sizeBytes
    }

    /// What is copied goes to the disk while more is read, not into the page cache first and to the disk at the end: it
    /// must be there anyway before the copy gets its name.
    private func targetCaching(_ source: Disk) -> ImageFile.Caching {
        source.sizeBytes % Conversion.largestBlockBytes == 0 ? .directWherePossible : .buffered
    }

    /// No file system asks for more of direct I/O.
    private static let largestBlockBytes: UInt64 = 4096

    private func emptyImage(ofSizeBytes sizeBytes: UInt64) throws(ImageToolError) -> ([UInt8], UInt64) {
        if let limitation = geometry.qemuLimitation, limitation.preventsOpening, !allowsWhatQEMUCannotOpen {
            throw .cannotCreate(.qemuCannotOpen(path: target, limitation))
        }
        do throws(QEDFormatError) {
            let header = try QEDHeader(newImageOfSizeBytes: sizeBytes, geometry: geometry)
            return (header.encoded(), header.l1TableFileOffset + geometry.tableSizeBytes)
        } catch {
            throw .cannotCreate(.cannotBeDescribed(path: target, error))
        }
    }

    private func verify(_ source: Disk, _ path: String, shownAs shown: String) throws(ImageToolError) {
        let copy = try Disk(path: path, shownAs: shown, format: targetFormat, isReadOnly: true, policy: policy)
        copy.dropFromPageCache()
        // A target that was there may be longer, and keeps what it has there.
        if case .contentDiffers(let deviceOffset, _) = try DiskComparison(source, copy, isStrict: false).run(),
            deviceOffset < source.sizeBytes
        {
            throw .verificationFailed(path: shown, deviceOffset: deviceOffset)
        }
        try copy.close()
    }
}
