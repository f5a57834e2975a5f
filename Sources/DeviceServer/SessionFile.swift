import BlockStorage
import Glibc
import QEDEngine
import SystemPackage

/// The memory in which an image's mapping log outlives its server: a file on a tmpfs beside the device records, mapped
/// shared. It is named for the image's device and inode, so whoever serves the image next finds it.
final class SessionFile {
    // SAFETY: mapped here with `sizeBytes`, unmapped in deinit, which the image's last user precedes.
    let memory: SessionMemory
    /// No earlier server had left one.
    let isNew: Bool
    private let path: String

    /// Finds the image's file, or makes it. The image is locked, so nobody else does.
    init(image: ImageIdentity, registry: DeviceRegistry) throws(RegistryError) {
        try registry.makeDirectory()
        let path = SessionLogPath.path(
            inDirectory: registry.directory,
            image: ImageFile.Identity(device: image.device, inode: image.inode))
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
            address: mapped, sizeBytes: sizeBytes,
            image: MappingLog.Identity(device: image.device, inode: image.inode))
        isComplete = true
    }

    deinit { munmap(memory.address, memory.sizeBytes) }

    /// The image was closed well: nothing is left to replay.
    func remove() { unlink(path) }
}
