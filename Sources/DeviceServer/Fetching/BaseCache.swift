import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDFormat
import SystemPackage
import Ublk

/// A disk that shows a base elsewhere, and keeps what is read of it: one for all of a machine's clones of that base. A device
/// that nobody writes to (`add --read-only --copy-on-read --keep-limit`), by its name, with its image in a directory of its own.
public struct BaseCache {
    public let record: DeviceRecord

    /// Where images are, unless somebody says otherwise. What is there can be had again.
    public static let standardDirectory = "/var/cache/qed-ublk"
    /// The bound of a cache without one.
    public static let noLimitBytes = ServerConfiguration.keepLimits.upperBound

    public static func standardPath(of name: DeviceName) -> String { "\(standardDirectory)/\(name.text).qed" }

    /// nil where the device is none.
    public init?(_ record: DeviceRecord) {
        guard record.isReadOnly, record.keepsReads, record.keepLimitBytes != nil else { return nil }
        self.record = record
    }

    /// - Throws: `BaseCacheError`.
    public static func named(_ name: String, registry: DeviceRegistry = DeviceRegistry()) throws -> BaseCache {
        try DeviceRequirements.check()
        let records = registry.list()
        let record = try records.first { $0.name?.text == name } ?? registry.device(named: name)
        guard let cache = BaseCache(record) else { throw BaseCacheError.notACache(UblkPaths.blockDevice(record.deviceID)) }
        return cache
    }

    public var devicePath: String { UblkPaths.blockDevice(record.deviceID) }

    /// What it takes on its file system.
    public var keptBytes: UInt64 {
        var bytes: UInt64 = 0
        for path in [record.imagePath, KeptRoom.olderPath(of: record.imagePath)] {
            var status = stat()
            if stat(path, &status) == 0 { bytes += UInt64(clamping: status.st_blocks) * 512 }
        }
        return bytes
    }

    /// Nil: as much as there is.
    public var limitBytes: UInt64? { record.keepLimitBytes.flatMap { $0 == Self.noLimitBytes ? nil : $0 } }

    /// How many devices lie over it.
    public func cloneCount(among records: [DeviceRecord]) -> Int {
        guard let own = FileIdentity(ofFileAt: devicePath) else { return 0 }
        return records.count { $0.backingFiles.contains(own) }
    }

    // MARK: - Making and removing one

    /// Makes the image, unless it is there, and a device of it.
    /// - Parameters:
    ///   - imagePath: nil: the standard one, with its directory.
    ///   - announce: is given the device's path.
    /// - Throws: whatever is thrown, what was made is gone again.
    public static func create(
        _ name: DeviceName, address: String, imagePath: String?, limitBytes: UInt64?, baseTimeoutSeconds: UInt32?,
        warn: @escaping (String) -> Void, announce: (String) throws -> Void
    ) throws {
        let path = imagePath ?? standardPath(of: name)
        if imagePath == nil { try makeStandardDirectory() }
        let creation = ImageCreation(
            path: path, sizeBytes: nil, geometry: .standard, backing: .init(name: address, format: .raw),
            allowsWhatQEMUCannotOpen: false)
        let isNew = !creation.exists
        if isNew { _ = try creation.create() } else { try expect(path, toLieOver: address) }
        var requested = RequestedDevice()
        requested.name = name
        requested.isReadOnly = true
        requested.keepsReads = true
        requested.keepLimitBytes = limitBytes ?? noLimitBytes
        requested.backing.bases = [address]
        requested.backing.baseTimeoutSeconds = baseTimeoutSeconds
        do {
            try DeviceAddition(imagePath: path, requested, warn: warn).runInBackground(isSupervised: true, announce: announce)
        } catch {
            if isNew { unlink(path) }
            throw error
        }
    }

    private static func makeStandardDirectory() throws(BaseCacheError) {
        var directory = FilePath("/")
        for component in FilePath(standardDirectory).components {
            directory.append(component)
            if mkdir(directory.string, 0o755) != 0, errno != EEXIST {
                throw .noDirectory(standardDirectory, Errno(rawValue: errno))
            }
        }
    }

    private static func expect(_ path: String, toLieOver address: String) throws {
        let file = try ImageFile(path: path, access: .readOnly, caching: .buffered, lock: nil)
        let header = try ImageHeader(reading: file)
        guard let name = header.backingFileName else { throw BaseCacheError.isOverAnother(path, "nothing") }
        if name.text == address { return }
        // The image lies over what it kept before, which lies over the base.
        let older = KeptRoom.olderPath(of: path)
        guard older.hasSuffix("/" + name.text) || older == name.text,
            let below = try? ImageHeader(
                reading: ImageFile(path: older, access: .readOnly, caching: .buffered, lock: nil)
            ).backingFileName,
            below.text == address
        else { throw BaseCacheError.isOverAnother(path, name.text) }
    }

    /// Takes the device away, and its image.
    public func drop(tell: @escaping (String) -> Void) throws {
        guard let image = try? ImageFile(path: record.imagePath, access: .readOnly, caching: .buffered, lock: nil),
            image.identity == record.image, KeptRoom.isExpendable(image)
        else { throw BaseCacheError.hasMore(record.imagePath) }
        try DeviceRemoval(force: false, tell: tell).remove(named: devicePath)
        try Self.remove(record.imagePath)
    }

    /// The same of one that has no device, by its image.
    /// - Throws: `BaseCacheError.notFound` where there is none.
    public static func dropImage(of name: String, at path: String) throws {
        guard access(path, F_OK) == 0 else { throw BaseCacheError.notFound(name, path) }
        let file = try ImageFile(path: path, access: .readWrite, caching: .buffered, lock: .writable)
        guard KeptRoom.isExpendable(file) else { throw BaseCacheError.hasMore(path) }
        try remove(path)
    }

    private static func remove(_ path: String) throws {
        let older = KeptRoom.olderPath(of: path)
        // Another cache may have its image by that name.
        let isOurs = access(older, F_OK) == 0 && isUnusedAndExpendable(older)
        for path in isOurs ? [path, older] : [path] where unlink(path) != 0 && errno != ENOENT {
            throw BaseCacheError.notRemoved(path, Errno(rawValue: errno))
        }
    }

    private static func isUnusedAndExpendable(_ path: String) -> Bool {
        let file = try? ImageFile(path: path, access: .readWrite, caching: .buffered, lock: .writable)
        return file.map(KeptRoom.isExpendable) ?? false
    }
}

/// Why there is no cache, or still one.
public enum BaseCacheError: Error, CustomStringConvertible {
    case notFound(String, String)
    case notACache(String)
    case isOverAnother(String, String)
    case noDirectory(String, Errno)
    /// Than what it has kept.
    case hasMore(String)
    case notRemoved(String, Errno)

    public var description: String {
        switch self {
        case .notFound(let name, let path): "\(name): no such cache: there is no device of that name, and no \(path)"
        case .notACache(let path):
            "\(path): was not added with --read-only, --copy-on-read and --keep-limit; 'qed-ublk cache list' says which were"
        case .isOverAnother(let path, let name):
            "\(path): is there already, and lies over \(name); drop it first, or say another --image"
        case .noDirectory(let path, let errno): "\(path): cannot be made: \(errno); say --image"
        case .hasMore(let path):
            "\(path): may have something that its base has not, so it is not removed; 'qed-ublk del' takes the device away"
        case .notRemoved(let path, let errno): "\(path): cannot be removed: \(errno)"
        }
    }
}
