import BlockStorage
import CSupport
import Glibc
import Platform
import QEDChain
import QEDEngine
import SystemPackage

/// The memory in which an image's mapping log outlives its server: a file beside the device records, mapped shared. It is
/// named for the image's identity, so whoever serves the image next finds it.
///
/// The directory should be a tmpfs. On a disk the log outlives a power cut, and is told by its boot; and stores into it may
/// have to wait for that disk.
final class SessionFile {
    // SAFETY: mapped here with `sizeBytes`, unmapped in deinit, which the image's last user precedes.
    let memory: SessionMemory
    /// No earlier server had left one.
    let isNew: Bool
    /// What is wrong with where it lies; nil where nothing is.
    let warning: String?
    private let path: String

    /// Finds the image's file, or makes it. The image is locked, so nobody else does.
    init(image: FileIdentity, registry: DeviceRegistry) throws(RegistryError) {
        guard let boot = BootIdentity.current else {
            throw RegistryError(attempt: "read", path: BootIdentity.path, errno: .noSuchFileOrDirectory)
        }
        try registry.makeDirectory()
        warning = SessionFile.prepare(registry.directory, boot: boot)
        let path = SessionLogPath.path(inDirectory: registry.directory, image: image)
        self.path = path
        var descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        let isNew = descriptor >= 0
        self.isNew = isNew
        if descriptor < 0 && errno == EEXIST { descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) }
        guard descriptor >= 0 else { throw RegistryError(attempt: "make", path: path, errno: Errno(rawValue: errno)) }
        var isComplete = false
        defer {
            close(descriptor)
            if isNew && !isComplete { unlink(path) }
        }
        let sizeBytes = MappingLog.sizeBytes()
        // Space for all of it now: a store into a mapping that finds none kills the process.
        let result = posix_fallocate(descriptor, 0, off_t(sizeBytes))
        guard result == 0, ftruncate(descriptor, off_t(sizeBytes)) == 0 else {
            let code = result == 0 ? errno : result
            throw RegistryError(attempt: "reserve space for", path: path, errno: Errno(rawValue: code))
        }
        let mapped = mmap(nil, sizeBytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let mapped, mapped != MAP_FAILED else {
            throw RegistryError(attempt: "map", path: path, errno: Errno(rawValue: errno))
        }
        memory = SessionMemory(
            address: mapped, sizeBytes: sizeBytes, owner: MappingLog.Owner(image: image, boot: boot),
            newSession: .random(in: 1 ... .max))
        isComplete = true
    }

    deinit { munmap(memory.address, memory.sizeBytes) }

    /// The image was closed well: nothing is left to replay.
    func remove() { unlink(path) }

    /// Before the image's own log is opened: one of another boot is taken away as well, not written on.
    /// - Returns: what is wrong with the directory; nil where nothing is.
    private static func prepare(_ directory: String, boot: BootIdentity) -> String? {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        if cs_is_in_memory(descriptor) == 1 { return nil }
        removeLogs(ofBootsOtherThan: boot, inDirectory: directory)
        return "\(isOnDisk(directory))"
    }

    static func isOnDisk(_ directory: String) -> Diagnosis {
        Diagnosis(
            "\(directory) is on a disk, so the server may have to wait for that disk",
            remedy: "mount a tmpfs there, or choose another directory with QED_UBLK_RUNTIME_DIR")
    }

    /// Nobody will replay those. Only where they could have stayed: not on a tmpfs.
    private static func removeLogs(ofBootsOtherThan boot: BootIdentity, inDirectory directory: String) {
        for name in ProcessFiles.names(in: directory) where SessionLogPath.isLog(name) {
            let path = "\(directory)/\(name)"
            let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            var start = [UInt8](repeating: 0, count: 64)
            let count = start.withUnsafeMutableBytes { cs_pread_fully(descriptor, $0.baseAddress, 64, 0) }
            if count == 64, let other = MappingLog.boot(ofLogStartingWith: start), other != boot { unlink(path) }
        }
    }
}
