import CSupport
import Glibc
import Platform
import SystemPackage

/// What may be opened because an image names it. Whoever can write an image chooses these names, so the user decides.
///
/// Whatever the policy, only plain files are opened: no FIFO, socket, terminal or directory, nothing in the kernel's
/// own file systems (`/proc`, `/sys`), and nothing through the links of `/proc` to what a process has open.
public struct BackingPolicy: Sendable {
    /// Whether an image that names a backing file is refused.
    public var refusesBackingFiles: Bool
    /// Whether a raw backing file may be a block device.
    public var allowsBlockDevices: Bool
    /// Where backing files must lie, in a directory or below it; nil allows any place.
    public var directories: [HeldDirectory]?
    /// Addresses of bases elsewhere, as patterns of the shell; an image may name none but those.
    public var bases: [String] = []
    /// And those that the machine allows (`AllowedBases`), which is looked up when an image names one, and not before.
    public var asksMachineForBases = false
    /// Until a read fails that a base elsewhere does not answer; nil: it waits.
    public var baseTimeoutNanoseconds: UInt64? = BackingPolicy.usualBaseTimeoutSeconds * 1_000_000_000

    /// How a base elsewhere is opened.
    public enum BaseOpening: Sendable {
        /// With all that its server tells: where holes are is known from the beginning.
        case whole
        /// Its first byte can be read as soon as there can be one, and where holes are is known a little later.
        case quick
        /// Its server is not asked: the chain ends above it.
        case leftOut
    }
    public var baseOpening = BaseOpening.whole

    /// A base elsewhere that a device was made over: where it cannot be reached the chain is opened all the same, and what is
    /// read of it waits.
    public var knownBase: KnownBase?

    /// As long as iSCSI waits for a target.
    public static let usualBaseTimeoutSeconds: UInt64 = 120

    public init(
        refusesBackingFiles: Bool = false, allowsBlockDevices: Bool = false, directories: [HeldDirectory]? = nil
    ) {
        self.refusesBackingFiles = refusesBackingFiles
        self.allowsBlockDevices = allowsBlockDevices
        self.directories = directories
    }

    /// Plain files, wherever they are.
    public static let plainFiles = BackingPolicy()

    /// Whether an image may name the base. In a pattern * stands for anything, a slash too, ? for a character.
    /// - Throws: where what the machine allows cannot be read.
    public func allows(baseAt address: String) throws(ImageFileError) -> Bool {
        func fits(_ pattern: String) -> Bool { fnmatch(pattern, address, 0) == 0 }
        if bases.contains(where: fits) { return true }
        guard asksMachineForBases else { return false }
        return try AllowedBases.ofMachine().contains(where: fits)
    }

    /// - Parameter found: by `cs_find`. The file itself is judged, not its name: nobody can exchange it meanwhile.
    func check(_ found: Int32, path: String, isBlockDevice: Bool) throws(ImageFileError) {
        guard cs_is_kernel_interface(found) == 0 else { throw .notARegularFile(path: path) }
        guard allowsBlockDevices || !isBlockDevice else { throw .blockDevice(path: path) }
        guard let directories else { return }
        let actualPath = try HeldDirectory.actualPath(of: found, shownAs: path)
        for directory in directories where try directory.contains(actualPath) { return }
        throw .outsideDirectories(path: path, actualPath: String(decoding: actualPath, as: UTF8.self))
    }
}

/// A base elsewhere, as it was when it was opened.
public struct KnownBase: Hashable, Sendable {
    public var address: String
    public var sizeBytes: UInt64

    public init(address: String, sizeBytes: UInt64) {
        self.address = address
        self.sizeBytes = sizeBytes
    }
}

/// A directory that is held open, so that it stays the one the user has named whatever becomes of the name.
///
/// What lies in it is decided by where a file really is, symbolic links and `..` resolved. Hard links and mounts lie
/// where they are seen.
public final class HeldDirectory: Sendable {
    public let path: String
    private let descriptor: Int32

    public init(_ path: String) throws(ImageFileError) {
        let found = cs_find(path, 0)
        guard found >= 0 else { throw ImageFileError(path: path, opening: Errno(rawValue: -found)) }
        guard UInt32(bitPattern: cs_type_of(found)) == CS_TYPE_DIRECTORY else {
            cs_close(found)
            throw .notADirectory(path: path)
        }
        self.path = path
        descriptor = found
    }

    deinit { cs_close(descriptor) }

    /// Whether the file at `actualPath` lies in this directory or below it, where the directory is now.
    func contains(_ actualPath: [UInt8]) throws(ImageFileError) -> Bool {
        let slash = UInt8(ascii: "/")
        var prefix = try HeldDirectory.actualPath(of: descriptor, shownAs: path)
        // Only the root ends with one.
        if prefix.last != slash { prefix.append(slash) }
        return actualPath.starts(with: prefix)
    }

    /// Where the kernel says that a file is: an absolute path, unless it cannot be reached from the root.
    static func actualPath(of found: Int32, shownAs path: String) throws(ImageFileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = bytes.withUnsafeMutableBytes { memory in
            // SAFETY: the buffer is that large, and any byte is a character.
            cs_path_of(found, memory.baseAddress?.assumingMemoryBound(to: CChar.self), UInt64(memory.count))
        }
        guard count >= 0 || ProcessFiles.areVisible else { throw .cannotTellWhere(path: path) }
        guard count >= 0 else { throw .cannotOpen(path: path, errno: Errno(rawValue: Int32(-count))) }
        // As long as the buffer: it may have been cut.
        guard count < bytes.count, bytes.first == UInt8(ascii: "/") else {
            throw .outsideDirectories(path: path, actualPath: path)
        }
        return Array(bytes.prefix(Int(count)))
    }
}
