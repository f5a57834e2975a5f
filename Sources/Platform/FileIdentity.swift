import CSupport
import SystemPackage

/// Which file it is, whatever path names it: the same as long as the file exists, also when its file system has been mounted
/// again, and no other file's.
///
/// 128 bits, made of the file's handle (its inode number, how often that was used before, and on btrfs the subvolume), the
/// file system's id and, where that number is a disk's, the device below it. Not of a device number that the kernel makes up
/// for each mount (btrfs, overlayfs, NFS). A file system without lasting handles gives inode number and time of birth
/// instead.
///
/// A copy of a whole disk, such as a snapshot of a volume, has another device number. So has a disk that was attached
/// anew under another name: what belongs to the file is then not found, and whoever needs it refuses.
public struct FileIdentity: Hashable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// An open file, or one that was found.
    public init(descriptor: Int32) throws(Errno) {
        var traits = cs_file_traits()
        let result = cs_traits_of(descriptor, &traits)
        guard result == 0 else { throw Errno(rawValue: -result) }
        var digest = Digest()
        for word in [
            traits.block_device, traits.device, traits.file_system, traits.inode,
            UInt64(bitPattern: traits.birth_seconds), UInt64(traits.birth_nanoseconds), UInt64(traits.handle_type),
            UInt64(traits.handle_bytes),
        ] { digest.add(word) }
        withUnsafeBytes(of: &traits.handle) { bytes in
            for byte in bytes.prefix(Int(traits.handle_bytes)) { digest.add(byte) }
        }
        high = UInt64(truncatingIfNeeded: digest.value >> 64)
        low = UInt64(truncatingIfNeeded: digest.value)
    }

    /// What is no file of this machine, by its name.
    public init(ofName name: String) {
        var digest = Digest()
        for byte in name.utf8 { digest.add(byte) }
        high = UInt64(truncatingIfNeeded: digest.value >> 64)
        low = UInt64(truncatingIfNeeded: digest.value)
    }

    /// What the path names now, symbolic links followed; nil where there is nothing, or it cannot be told. The file is not
    /// opened.
    public init?(ofFileAt path: String) {
        do throws(Errno) {
            guard let found = try FileIdentity.found(at: path) else { return nil }
            self = found
        } catch { return nil }
    }

    /// The same for whoever would do harm where it cannot be told.
    /// - Returns: nil where there is nothing.
    public static func found(at path: String) throws(Errno) -> FileIdentity? {
        let found = cs_find(path, 0)
        guard found >= 0 else {
            let error = Errno(rawValue: -found)
            if error == .noSuchFileOrDirectory || error == .notDirectory { return nil }
            throw error
        }
        defer { cs_close(found) }
        return try FileIdentity(descriptor: found)
    }

    /// FNV-1a of 128 bits: the same in every process and every version, unlike a `Hasher`.
    private struct Digest {
        private(set) var value: UInt128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d

        mutating func add(_ byte: UInt8) {
            value ^= UInt128(byte)
            value &*= 0x0000_0000_0100_0000_0000_0000_0000_013b
        }

        mutating func add(_ word: UInt64) {
            withUnsafeBytes(of: word.littleEndian) { for byte in $0 { add(byte) } }
        }
    }
}

/// 32 hexadecimal digits, for names and records.
extension FileIdentity: LosslessStringConvertible {
    public var description: String { high.hexadecimal + low.hexadecimal }

    public init?(_ text: String) {
        guard text.utf8.count == 32, let high = UInt64(text.prefix(16), radix: 16),
            let low = UInt64(text.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
        // The initializer of integers takes a sign.
        guard description == text else { return nil }
    }
}

extension UInt64 {
    /// 16 digits.
    fileprivate var hexadecimal: String {
        let digits = String(self, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}
