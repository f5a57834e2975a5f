import Glibc

/// A directory that is removed with all it holds.
final class TemporaryDirectory {
    let path: String

    struct Failure: Error {}

    init() throws {
        var template = Array("/tmp/qed-ublk-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure() }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit { remove(path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Makes a file; returns its path.
    @discardableResult
    func write(_ content: String, to name: String) throws -> String {
        let descriptor = open(file(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw Failure() }
        defer { close(descriptor) }
        let bytes = Array(content.utf8)
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count else { throw Failure() }
        return file(name)
    }

    var names: [String] { Self.names(in: path) }

    /// What a directory holds, in order.
    static func names(in path: String) -> [String] {
        guard let stream = opendir(path) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    private func remove(_ path: String) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            unlink(path)
            return
        }
        for name in Self.names(in: path) { remove("\(path)/\(name)") }
        rmdir(path)
    }
}
