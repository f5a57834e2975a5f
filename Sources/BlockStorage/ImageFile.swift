import CSupport
import IOURing
import Platform
import SystemPackage

/// An open image or backing file: its descriptor, identity, lock, and how its I/O must be aligned.
///
/// Owns the descriptor: it is closed, and the lock released, with the last reference. Any thread.
public final class ImageFile: @unchecked Sendable {
    public enum Access: Sendable { case readOnly, readWrite }

    public enum Caching: Sendable {
        /// Through the page cache: what a base shared by many overlays wants.
        case buffered
        /// Past the page cache where the file system can, else buffered.
        case directWherePossible
    }

    // SAFETY: as `alignment`; it changes in `becomeBase`.
    public private(set) var path: String
    public let descriptor: Int32
    public let access: Access
    // SAFETY: the only thing that changes, and only while no storage of the file is used: see `useBufferedIO`.
    public private(set) var alignment: StorageAlignment
    /// What direct I/O on the file takes, whether it is done or has been given up; nil where it was not asked for, or the
    /// file system has none.
    public let directAlignment: StorageAlignment?
    /// Two paths with the same identity are the same file.
    public let identity: FileIdentity
    /// Its length when it was opened.
    public let sizeBytes: UInt64
    private var lock: FileLock?
    /// Whether it is a block device: allowed as a raw base, never as an image.
    public let isBlockDevice: Bool
    /// Whether its file system can be believed where it says that holes are.
    public let tellsHolesTruly: Bool

    /// Opens and locks `path`.
    ///
    /// Follows symbolic links, accepts regular files and, where `allowBlockDevice`, block devices. Whatever else is
    /// there is not even opened: a FIFO would wait, and some devices act when they are opened.
    /// - Parameters:
    ///   - policy: what holds where an image names the file; nil where the user does.
    ///   - isDevices: a device is to be served, or closed, with it: it is that device's, whoever waits for it.
    public init(
        path: String, access: Access, caching: Caching, lock: FileLock?, allowBlockDevice: Bool = false,
        policy: BackingPolicy? = nil, isDevices: Bool = false
    ) throws(ImageFileError) {
        let found = cs_find(path, policy == nil ? 0 : CS_FIND_NO_MAGIC_LINKS)
        guard found >= 0 else { throw ImageFileError(path: path, opening: Errno(rawValue: -found)) }
        defer { cs_close(found) }
        let type = UInt32(bitPattern: cs_type_of(found))
        guard type == CS_TYPE_REGULAR || (allowBlockDevice && type == CS_TYPE_BLOCK) else {
            throw .notARegularFile(path: path)
        }
        if let policy { try policy.check(found, path: path, isBlockDevice: type == CS_TYPE_BLOCK) }

        let writeFlag: UInt32 = access == .readWrite ? CS_OPEN_WRITE : 0
        var alignment = StorageAlignment.none
        var opened: Int32 = -1
        if caching == .directWherePossible, let direct = ImageFile.directAlignment(of: found) {
            opened = cs_open_found(found, path, writeFlag | CS_OPEN_DIRECT)
            if opened >= 0 { alignment = direct }
        }
        let descriptor = opened >= 0 ? opened : cs_open_found(found, path, writeFlag)
        guard descriptor >= 0 else { throw ImageFileError(path: path, opening: Errno(rawValue: -descriptor)) }
        var keep = false
        defer { if !keep { cs_close(descriptor) } }

        if let lock {
            do { try lock.takePatiently(on: descriptor) } catch .resourceTemporarilyUnavailable {
                throw .inUse(path: path, by: FileHolder.holders(against: lock, on: descriptor))
            } catch {
                throw .cannotLock(path: path, errno: error)
            }
        }
        // The length is read under the lock: before it another program could still have been changing it.
        var status = cs_file_status()
        let identified = cs_status_of(descriptor, &status)
        guard identified == 0 else { throw ImageFileError(path: path, opening: Errno(rawValue: -identified)) }
        do throws(Errno) { identity = try FileIdentity(descriptor: descriptor) } catch {
            throw ImageFileError(path: path, opening: error)
        }
        // Not before it is locked: the server that had it then could have died by now, with a device that waits.
        if access == .readWrite, !isDevices, let device = FileClaims.claimant(of: identity) {
            throw .belongs(path: path, device: device)
        }

        self.path = path
        self.lock = lock
        self.descriptor = descriptor
        self.access = access
        self.alignment = alignment
        directAlignment = alignment == .none ? nil : alignment
        sizeBytes = status.size_bytes
        isBlockDevice = type == CS_TYPE_BLOCK
        // A block device has none, and says so.
        tellsHolesTruly = isBlockDevice || cs_tells_holes_truly(descriptor) == 1
        keep = true
    }

    // SAFETY: set once, by the thread that opens the file, before there is another one.
    /// A second, buffered descriptor, for a process that could not have one any more; negative: it is opened when it is needed.
    private var keptReader: Int32 = -1

    deinit {
        releaseLock()
        cs_close(descriptor)
        if keptReader >= 0 { cs_close(keptReader) }
    }

    /// Lets other programs have the file, though it stays open. Nothing may be done with it any more.
    public func releaseLock() { lock?.release(on: descriptor) }

    /// The file has become one that lies beneath others under another name: nobody writes to it any more through this, and
    /// others may read it.
    public func becomeBase(at path: String) {
        precondition(access == .readWrite, "a file that was not written")
        self.path = path
        guard lock != nil else { return }
        FileLock.releaseWriting(on: descriptor)
        lock = .readOnly
    }

    /// Nobody else has the file from now on, though this one was opened to be read; until `letOthersRead`.
    /// - Throws: `inUse` where somebody else reads it, `belongs` where a device waits for it.
    public func keepForItself() throws(ImageFileError) {
        precondition(lock == .readOnly || lock == nil, "a file that is written")
        do throws(Errno) { try FileLock.writable.take(on: descriptor, holding: lock) } catch .resourceTemporarilyUnavailable {
            throw .inUse(path: path, by: FileHolder.holders(against: .writable, on: descriptor))
        } catch {
            throw .cannotLock(path: path, errno: error)
        }
        if let device = FileClaims.claimant(of: identity) {
            letOthersRead()
            throw .belongs(path: path, device: device)
        }
    }

    /// Ends what `keepForItself` began.
    public func letOthersRead() { FileLock.releaseWriting(on: descriptor) }

    /// The same file has another name now.
    public func rename(to path: String) { self.path = path }

    /// Its length now.
    public func currentSizeBytes() throws(ImageFileError) -> UInt64 {
        let result = cs_file_length(descriptor)
        guard result >= 0 else { throw .cannotRead(path: path, errno: Errno(rawValue: Int32(-result))) }
        return UInt64(result)
    }

    /// Gives up direct I/O, where requests do not consist of whole blocks of it. Storages that were made before must not be
    /// used any more, and nothing of theirs be under way: direct writes beside buffered ones could make the page cache
    /// stale, of which the kernel tells by failing a sync.
    public func useBufferedIO() throws(ImageFileError) {
        guard alignment != .none else { return }
        let result = cs_clear_direct(descriptor)
        guard result == 0 else { throw .cannotOpen(path: path, errno: Errno(rawValue: -result)) }
        alignment = .none
    }

    /// This file's storage for the queue of `ring`. The file must outlive it.
    public func storage(on ring: Ring) -> FileStorage {
        precondition(
            MemoryLayout<IOVector>.size == MemoryLayout<iovec>.size
                && MemoryLayout<IOVector>.offset(of: \.byteCount) == MemoryLayout<iovec>.offset(of: \.iov_len),
            "IOVector must have the layout of struct iovec")
        return FileStorage(ring: ring, descriptor: descriptor, alignment: alignment, tellsHolesTruly: tellsHolesTruly)
    }

    /// Up to `byteCount` bytes; fewer where the file ends. Blocks: for the header, before serving.
    public func readBytes(fileOffset: UInt64 = 0, byteCount: Int) throws(ImageFileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        let reader = keptReader >= 0 ? keptReader : try openReader()
        defer { if keptReader < 0 { cs_close(reader) } }
        let count = bytes.withUnsafeMutableBytes { cs_pread_fully(reader, $0.baseAddress, UInt64(byteCount), fileOffset) }
        guard count >= 0 else { throw .cannotRead(path: path, errno: Errno(rawValue: Int32(-count))) }
        bytes.removeLast(byteCount - Int(count))
        return bytes
    }

    /// Through a second, buffered descriptor of the same file: direct I/O would ask for alignment.
    private func openReader() throws(ImageFileError) -> Int32 {
        let reader = cs_open_found(descriptor, path, 0)
        guard reader >= 0 else { throw ImageFileError(path: path, opening: Errno(rawValue: -reader)) }
        return reader
    }

    /// `readBytes` needs no rights from now on. Once.
    public func keepReader() throws(ImageFileError) {
        precondition(keptReader < 0, "it has a reader")
        keptReader = try openReader()
    }

    /// The multiples direct I/O wants, or nil where the file system refuses it.
    private static func directAlignment(of descriptor: Int32) -> StorageAlignment? {
        var direct = cs_direct_alignment()
        switch cs_direct_alignment(descriptor, &direct) {
        case 0 where direct.offset_bytes == 0:
            return nil
        case 0:
            return StorageAlignment(
                offsetBytes: max(Int(direct.offset_bytes), sectorBytes), memoryBytes: max(Int(direct.memory_bytes), 1))
        default:
            // Before Linux 6.1 the kernel cannot tell: a page is right everywhere.
            return StorageAlignment(offsetBytes: pageBytes, memoryBytes: pageBytes)
        }
    }
}

private let sectorBytes = 512
private let pageBytes = 4096

/// A file that cannot be used as image or backing file.
public enum ImageFileError: Error, Equatable, Sendable, CustomStringConvertible {
    case notFound(path: String)
    case noPermission(path: String)
    case notARegularFile(path: String)
    /// A directory is needed.
    case notADirectory(path: String)
    /// An image names a block device, and the user has not allowed that.
    case blockDevice(path: String)
    /// An image names a file that is really elsewhere than the user allows.
    case outsideDirectories(path: String, actualPath: String)
    /// An image names a base elsewhere, and the user has not allowed that.
    case baseNotAllowed(path: String)
    /// A base elsewhere: it does not answer, has no such export, or is none.
    case baseUnusable(path: String, reason: String)
    /// The programs that hold it may be unknown.
    case inUse(path: String, by: [FileHolder])
    /// To a device that waits for its server.
    case belongs(path: String, device: String)
    case cannotLock(path: String, errno: Errno)
    case changedWhileOpening(path: String)
    /// Where a file really is only /proc can tell.
    case cannotTellWhere(path: String)
    case cannotOpen(path: String, errno: Errno)
    case cannotRead(path: String, errno: Errno)

    init(path: String, opening errno: Errno) {
        switch errno {
        // A name that is too long for any file is the name of none.
        case .noSuchFileOrDirectory, .notDirectory, .fileNameTooLong: self = .notFound(path: path)
        case .permissionDenied, .notPermitted, .readOnlyFileSystem: self = .noPermission(path: path)
        case .isDirectory, .tooManySymbolicLinkLevels: self = .notARegularFile(path: path)
        case .staleNFSFileHandle: self = .changedWhileOpening(path: path)
        default: self = .cannotOpen(path: path, errno: errno)
        }
    }

    public var description: String {
        switch self {
        case .notFound(let path): "\(path): no such file"
        case .noPermission(let path): "\(path): no permission to open it; run as its owner or root, or open it read-only"
        case .notARegularFile(let path): "\(path): not a regular file; give the path of an image file"
        case .notADirectory(let path): "\(path): not a directory"
        case .blockDevice(let path):
            "\(path): a block device, which an image may name only where --backing-devices allows it"
        case .baseNotAllowed(let path):
            "\(path): a base elsewhere, which an image may name only where --base-allow or /etc/qed-ublk/base-allow allows it"
        case .baseUnusable(let path, let reason): "\(path): cannot be used as a base: \(reason)"
        case .outsideDirectories(let path, let actualPath):
            "\(path): lies outside the directories that --backing-dir allows"
                + (actualPath == path ? "" : " (it is really \(actualPath))")
        case .inUse(let path, let holders):
            "\(path): in use by \(ImageFileError.names(of: holders)); close that program, or remove its device, first"
        case .belongs(let path, let device):
            "\(path): belongs to \(device), which waits for a server; give it one ('qed-ublk recover') or remove it ('qed-ublk "
                + "del') first"
        case .cannotLock(let path, let errno): "\(path): its file system cannot lock it (\(errno)); move it to a local one"
        case .changedWhileOpening(let path): "\(path): was replaced while it was being opened; try again"
        case .cannotTellWhere(let path):
            "\(path): whether it lies in a directory that --backing-dir allows cannot be told without /proc; mount it (mount -t "
                + "proc proc /proc)"
        case .cannotOpen(let path, let errno): "\(path): cannot open: \(errno)"
        case .cannotRead(let path, let errno): "\(path): cannot read: \(errno)"
        }
    }

    private static func names(of holders: [FileHolder]) -> String {
        holders.isEmpty
            ? "another program (it holds the image's lock)" : holders.map(\.description).joined(separator: ", ")
    }
}
