import Foundation

/// A directory that is removed, with everything in it, with the last reference.
public final class TemporaryDirectory: Sendable {
    public let path: String

    public init() throws {
        // Not /tmp: where that is a tmpfs, direct I/O would never be tested.
        let url = URL(fileURLWithPath: "/var/tmp/qed-ublk-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
        path = url.path
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// The path of `name` in this directory.
    public func path(_ name: String) -> String { "\(path)/\(name)" }

    public func makeDirectory(_ name: String) throws {
        try FileManager.default.createDirectory(atPath: path(name), withIntermediateDirectories: false)
    }

    /// Makes a file; returns its path.
    @discardableResult
    public func write(_ content: String, to name: String) throws -> String {
        try writeFile(path(name), Array(content.utf8))
        return path(name)
    }

    public var names: [String] { TemporaryDirectory.names(in: path) }

    /// What a directory holds, in order; nothing where there is none.
    public static func names(in path: String) -> [String] {
        (try? FileManager.default.contentsOfDirectory(atPath: path))?.sorted() ?? []
    }

    /// Everything in the directory, hidden files too: each file's name and content, and the names of what is no file.
    public func contents() throws -> [String: [UInt8]?] {
        var contents: [String: [UInt8]?] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: path) {
            let attributes = try FileManager.default.attributesOfItem(atPath: path(name))
            let isFile = attributes[.type] as? FileAttributeType == .typeRegular
            contents[name] = .some(isFile ? try readFile(path(name)) : nil)
        }
        return contents
    }
}

public func readFile(_ path: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
}

public func writeFile(_ path: String, _ bytes: [UInt8]) throws {
    try Data(bytes).write(to: URL(fileURLWithPath: path))
}
