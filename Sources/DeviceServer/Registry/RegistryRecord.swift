import BlockStorage
import CSupport
import Glibc
import Platform

/// How an image's file looked when its server left it well. Whatever has written to it since, it looks different.
public struct ImageMark: Equatable, Sendable {
    public var sizeBytes: UInt64
    /// When it was last written to, in nanoseconds since 1970.
    public var writtenAt: Int64

    public init(sizeBytes: UInt64, writtenAt: Int64) {
        self.sizeBytes = sizeBytes
        self.writtenAt = writtenAt
    }

    /// An open file.
    public init?(descriptor: Int32) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        sizeBytes = UInt64(status.st_size)
        writtenAt = Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    }
}

extension ImageMark {
    var json: JSONValue { ["size": JSONValue(sizeBytes), "written_at": JSONValue(writtenAt)] }

    init?(_ json: JSONValue) {
        guard let size = json["size"]?.integer(as: UInt64.self),
            let writtenAt = json["written_at"]?.integer(as: Int64.self)
        else { return nil }
        self.init(sizeBytes: size, writtenAt: writtenAt)
    }
}

/// What is known about a served device besides what the kernel knows.
public struct DeviceRecord: Equatable, Sendable {
    public var deviceID: UInt32
    public var server: ProcessIdentity
    /// Absolute.
    public var imagePath: String
    /// See `DeviceName`; nil: it was given none.
    public var name: DeviceName?
    /// See `DeviceLink`; nil: there is none.
    public var link: DeviceLink?
    /// As `add` was told.
    public var scansPartitions = true
    public var isUntrusted = false
    /// The file that the device was made of: no other one may be served as it.
    public var image: FileIdentity
    /// The files beneath it, those of the chain in order. They must not have changed either.
    public var backingFiles: [FileIdentity]
    /// The base elsewhere that is the last of them: the next server can begin without its answer. Nil where there is none, and
    /// where an earlier version has not said.
    public var base: KnownBase?
    /// A random number that the kernel's device has too (`UblkDeviceInfo.serverFlags`): another device of the same number is
    /// not this record's.
    public var deviceNonce: UInt64
    public var isReadOnly: Bool
    /// Seconds since 1970.
    public var startedAt: Int64
    /// What the next server has to be told of the files that the image may name: options of `add`.
    public var backingArguments: [String]
    /// For the tables, as `add` was told; nil: as usual.
    public var cacheBytes: Int?
    /// What is read from the bottom of the chain is kept in the image.
    public var keepsReads = false
    /// How much that may take.
    public var keepLimitBytes: UInt64?
    /// Its server writes to the image: a disk that is only read may keep what it reads.
    public var changesImage: Bool { !isReadOnly || keepsReads }
    /// Set when the server has left the device to the next one, and closed the image well.
    public var leftImage: ImageMark?
    /// Set while a server takes the device over from `server`; stays set when that is cut short (see `Takeover`).
    public var isBeingTakenOver: Bool
    /// The image is an overlay that goes with the device.
    public var isThrowAway = false
    /// The disk goes when its last user has gone.
    public var goesWhenUnused = false
    /// Set when a sync of the image has failed: the server only reads from then on.
    public var hasFailed = false
    /// Whether the server accesses the image's file past the page cache; nil where an earlier version has not said.
    public var isDirect: Bool?
    /// Set while an overlay is about to become the image: its file, and the path that the image gets then, as the first of
    /// `backingFiles`, unless `rollback` says otherwise. Which of both has come about the image's path tells: see `settled`.
    var nextImage: FileIdentity?
    var nextSnapshot: String?
    /// Set while the files beneath the image are about to be others: those. Which of both has come about their headers tell.
    var nextBackingFiles: [FileIdentity]?
    /// Set while the disk is about to grow: the image may have that size already, and the kernel's disk not yet.
    var nextSizeBytes: UInt64?
    /// Files that are to be taken away once the files beneath are others.
    var mergedFiles: [MergedFiles.File] = []
    /// Set while files beneath are copied into another one, and left when that was cut short.
    var unfinishedMerge: UnfinishedMerge?
    /// Set from when `nextImage` is about to take the image's place, over other files, until what was the image is removed.
    var rollback: RolledBackImage?
    /// The path of the first of `backingFiles`, while that is a snapshot that is not sealed yet.
    var unsealedSnapshot: String?

    public init(
        deviceID: UInt32, server: ProcessIdentity, imagePath: String, image: FileIdentity,
        backingFiles: [FileIdentity] = [], deviceNonce: UInt64,
        isReadOnly: Bool, startedAt: Int64, backingArguments: [String] = [], cacheBytes: Int? = nil, leftImage: ImageMark? = nil,
        isBeingTakenOver: Bool = false
    ) {
        self.deviceID = deviceID
        self.server = server
        self.imagePath = imagePath
        self.image = image
        self.backingFiles = backingFiles
        self.deviceNonce = deviceNonce
        self.isReadOnly = isReadOnly
        self.startedAt = startedAt
        self.backingArguments = backingArguments
        self.cacheBytes = cacheBytes
        self.leftImage = leftImage
        self.isBeingTakenOver = isBeingTakenOver
    }
}

/// The record as JSON. A stable format: scripts may read it.
extension DeviceRecord {
    var json: JSONValue {
        [
            "device_id": JSONValue(deviceID), "pid": JSONValue(server.id),
            "process_start_ticks": JSONValue(server.startTicks), "image": .string(imagePath),
            "image_identity": .string(image.description), "device_nonce": JSONValue(deviceNonce),
            "backing_identities": .array(backingFiles.map { .string($0.description) }), "base": base?.json ?? .null,
            "read_only": .bool(isReadOnly), "started_at": JSONValue(startedAt),
            "backing_options": .array(backingArguments.map { .string($0) }), "left_image": leftImage?.json ?? .null,
            "being_taken_over": .bool(isBeingTakenOver), "failed": .bool(hasFailed),
            "cache_size": cacheBytes.map { JSONValue($0) } ?? .null, "copy_on_read": .bool(keepsReads),
            "keep_limit": keepLimitBytes.map { JSONValue($0) } ?? .null,
            "throw_away": .bool(isThrowAway), "goes_when_unused": .bool(goesWhenUnused), "partition_scan": .bool(scansPartitions),
            "untrusted": .bool(isUntrusted),
            "name": name.map { .string($0.text) } ?? .null, "symlink": link.map { .string($0.path) } ?? .null,
            "direct_io": isDirect.map { .bool($0) } ?? .null,
            "next_image_identity": nextImage.map { .string($0.description) } ?? .null,
            "next_snapshot": nextSnapshot.map { .string($0) } ?? .null,
            "unsealed_snapshot": unsealedSnapshot.map { .string($0) } ?? .null,
            "next_backing_identities": nextBackingFiles.map { .array($0.map { .string($0.description) }) } ?? .null,
            "next_size": nextSizeBytes.map { JSONValue($0) } ?? .null,
            "merged_files": .array(mergedFiles.map(\.json)), "unfinished_merge": unfinishedMerge?.json ?? .null,
            "rolled_back_image": rollback?.file.json ?? .null,
            "rolled_back_backing_identities": rollback.map { .array($0.backingFiles.map { .string($0.description) }) } ?? .null,
        ]
    }

    /// nil where a member is missing or impossible. Members that are not known are ignored.
    init?(_ json: JSONValue) {
        guard let deviceID = json["device_id"]?.integer(as: UInt32.self),
            let processID = json["pid"]?.integer(as: Int32.self), processID > 0,
            let startTicks = json["process_start_ticks"]?.integer(as: UInt64.self),
            let imagePath = json["image"]?.text, imagePath.utf8.first == UInt8(ascii: "/"), !imagePath.utf8.contains(0),
            let image = json["image_identity"]?.text.flatMap({ FileIdentity($0) }),
            let deviceNonce = json["device_nonce"]?.integer(as: UInt64.self),
            let isReadOnly = json["read_only"]?.truth,
            let startedAt = json["started_at"]?.integer(as: Int64.self)
        else { return nil }
        self.init(
            deviceID: deviceID, server: ProcessIdentity(id: processID, startTicks: startTicks), imagePath: imagePath,
            image: image, deviceNonce: deviceNonce, isReadOnly: isReadOnly, startedAt: startedAt)
        if case .array(let files)? = json["backing_identities"] {
            backingFiles = files.compactMap { $0.text.flatMap { FileIdentity($0) } }
            guard backingFiles.count == files.count else { return nil }
        }
        base = json["base"].flatMap(KnownBase.init)
        if case .array(let options)? = json["backing_options"] { backingArguments = options.compactMap(\.text) }
        leftImage = json["left_image"].flatMap(ImageMark.init)
        isBeingTakenOver = json["being_taken_over"]?.truth ?? false
        hasFailed = json["failed"]?.truth ?? false
        isDirect = json["direct_io"]?.truth
        nextImage = json["next_image_identity"]?.text.flatMap { FileIdentity($0) }
        nextSnapshot = json["next_snapshot"]?.text
        unsealedSnapshot = json["unsealed_snapshot"]?.text
        nextSizeBytes = json["next_size"]?.integer(as: UInt64.self)
        if case .array(let files)? = json["next_backing_identities"] {
            nextBackingFiles = files.compactMap { $0.text.flatMap { FileIdentity($0) } }
        }
        if case .array(let files)? = json["merged_files"] { mergedFiles = files.compactMap(MergedFiles.File.init) }
        unfinishedMerge = json["unfinished_merge"].flatMap(UnfinishedMerge.init)
        if let file = json["rolled_back_image"].flatMap(MergedFiles.File.init),
            case .array(let files)? = json["rolled_back_backing_identities"]
        {
            rollback = RolledBackImage(file: file, backingFiles: files.compactMap { $0.text.flatMap { FileIdentity($0) } })
        }
        isThrowAway = json["throw_away"]?.truth ?? false
        goesWhenUnused = json["goes_when_unused"]?.truth ?? false
        scansPartitions = json["partition_scan"]?.truth ?? true
        isUntrusted = json["untrusted"]?.truth ?? false
        keepsReads = json["copy_on_read"]?.truth ?? false
        keepLimitBytes = json["keep_limit"]?.integer(as: UInt64.self)
        if let keepLimitBytes, !ServerConfiguration.keepLimits.contains(keepLimitBytes) { self.keepLimitBytes = nil }
        name = json["name"]?.text.flatMap { DeviceName($0) }
        link = json["symlink"]?.text.flatMap { $0.utf8.first == UInt8(ascii: "/") ? DeviceLink(path: $0) : nil }
        cacheBytes = json["cache_size"]?.integer(as: Int.self)
        if let cacheBytes, !ServerConfiguration.cacheLimits.contains(cacheBytes) { self.cacheBytes = nil }
    }
}

extension DeviceRecord {
    /// The record as it is once it is known whether the overlay that it tells of has become the image: then the image's path
    /// leads to it.
    var settled: DeviceRecord {
        guard let overlay = nextImage, let snapshot = nextSnapshot, FileIdentity(ofFileAt: imagePath) == overlay else {
            return self
        }
        var record = self
        record.nextImage = nil
        record.nextSnapshot = nil
        record.image = overlay
        if let rollback {
            record.backingFiles = rollback.backingFiles
            record.nextBackingFiles = nil
            record.mergedFiles = []
        } else {
            record.unsealedSnapshot = snapshot
            record.backingFiles = [image] + backingFiles
        }
        return record
    }
}

/// How a user names a device.
public enum DeviceReference: Equatable, Sendable {
    case device(UInt32)
    case image(path: String)

    /// "3", "ublkb3", "/dev/ublkb3" and any other path that leads to that node are device 3, and so are the names of its
    /// partitions; anything else is an image's path ("./3" for one of that name).
    public init(_ text: String) { self.init(text, .machine) }

    init(_ text: String, _ tree: KernelTree) {
        let name = text.hasPrefix("/dev/") ? text.dropFirst(5) : text[...]
        if let id = DeviceReference.deviceID(text[...]) ?? DeviceReference.deviceID(ofNode: name)
            ?? DeviceReference.deviceID(ofNodeAt: text, tree)
        {
            self = .device(id)
        } else {
            self = .image(path: text)
        }
    }

    /// Whether a number or a node is named, and not an image.
    public var isDevice: Bool {
        if case .device = self { true } else { false }
    }

    /// Of a disk or a partition, by the kernel's name.
    private static func deviceID(ofNode name: Substring) -> UInt32? {
        guard name.hasPrefix("ublkb") else { return nil }
        let parts = name.dropFirst(5).split(separator: "p", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 1 || deviceID(parts[1]) != nil else { return nil }
        return parts.first.flatMap { deviceID($0) }
    }

    /// Of a disk or a partition, by a link that udev or somebody else has made, or a node elsewhere.
    private static func deviceID(ofNodeAt path: String, _ tree: KernelTree) -> UInt32? {
        guard let number = tree.deviceNumber(path) else { return nil }
        let name = tree.blockDevices.first { $0.hasPrefix("ublkb") && tree.number($0) == number }
        return name.flatMap { deviceID(ofNode: $0[...]) }
    }

    /// A number as the kernel writes it: decimal, no sign, no leading zero.
    static func deviceID(_ digits: Substring) -> UInt32? {
        guard let id = UInt32(digits), digits == String(id)[...] else { return nil }
        return id
    }
}
