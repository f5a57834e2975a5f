import Glibc

/// What /proc tells about other processes. Never waits, and never fails: what may not be seen is not there.
package enum ProcessFiles {
    /// Whether /proc is mounted. In an image builder's chroot it often is not.
    package static var areVisible: Bool { access("/proc/self/fd", F_OK) == 0 }

    /// The names in a directory.
    package static func names(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                })
        }
        return names
    }

    /// The ids of all processes but this one.
    package static func otherProcesses() -> [Int32] {
        names(in: "/proc").compactMap { Int32($0) }.filter { $0 != getpid() }
    }

    /// What a symbolic link says; of a link as long as this or longer its beginning.
    package static func target(ofLink path: String, limitBytes: Int = 4096) -> String? {
        var characters = [CChar](repeating: 0, count: limitBytes)
        let count = readlink(path, &characters, characters.count)
        guard count > 0 else { return nil }
        return String(decoding: characters.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The first bytes of a file, as one look gives them; none where it may not be read.
    package static func beginning(of path: String, limitBytes: Int) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: limitBytes)
        let count = read(descriptor, &bytes, limitBytes)
        return Array(bytes.prefix(max(count, 0)))
    }

    /// The name of a process, as `ps` shows it.
    package static func name(ofProcess id: Int32) -> String {
        let name = readSmallFile("/proc/\(id)/comm", limitBytes: 64) ?? []
        return String(decoding: name.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    }
}

/// The content of a regular file of at most `limitBytes`; nil for anything else. Never blocks, follows no symbolic
/// link.
package func readSmallFile(_ path: String, limitBytes: Int) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }

    var content = [UInt8](repeating: 0, count: limitBytes + 1)
    var size = 0
    while size < content.count {
        let count = content.withUnsafeMutableBytes { bytes in
            read(descriptor, bytes.baseAddress?.advanced(by: size), bytes.count - size)
        }
        if count < 0 && errno == EINTR { continue }
        guard count >= 0 else { return nil }
        if count == 0 { return Array(content[..<size]) }
        size += count
    }
    return nil
}
