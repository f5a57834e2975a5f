import BlockStorage
import CSupport
import Glibc
import Platform
import SystemPackage

/// Files that have been merged into another one: nothing names them any more.
struct MergedFiles {
    struct File: Equatable, Sendable {
        var path: String
        var file: FileIdentity
    }

    var files: [File]

    /// Takes them away, for good; one that cannot be does not keep the others.
    func remove() throws(Errno) {
        var failure: Errno?
        for file in files {
            do throws(Errno) {
                // Whatever else has the name by now is somebody's.
                guard try FileIdentity.found(at: file.path) == file.file else { continue }
                if unlink(file.path) != 0, errno != ENOENT { throw Errno(rawValue: errno) }
            } catch {
                failure = error
            }
        }
        try SnapshotNames.sync(directoriesOf: files.map(\.path))
        if let failure { throw failure }
    }
}

/// A merge that has not ended: how far the target has what its files show, durably.
struct UnfinishedMerge: Equatable, Sendable {
    /// The newest first; the last is the target.
    var files: [FileIdentity]
    /// Of the disk that they show.
    var sizeBytes: UInt64
    var endBytes: UInt64

    /// - Returns: how many of `others` lie over these, which are the rest of them; nil: these are others, or of another size, and
    ///   what the target has is of no use.
    func newFiles(in others: [FileIdentity], sizeBytes: UInt64) -> Int? {
        guard sizeBytes == self.sizeBytes, files.count > 1, others.count >= files.count,
            others.suffix(files.count).elementsEqual(files)
        else { return nil }
        return others.count - files.count
    }
}

extension MergedFiles.File {
    var json: JSONValue { ["path": .string(path), "identity": .string(file.description)] }

    init?(_ json: JSONValue) {
        guard let path = json["path"]?.text, let identity = json["identity"]?.text.flatMap({ FileIdentity($0) }) else {
            return nil
        }
        self.init(path: path, file: identity)
    }
}

extension UnfinishedMerge {
    var json: JSONValue {
        [
            "identities": .array(files.map { .string($0.description) }), "size": JSONValue(sizeBytes),
            "copied": JSONValue(endBytes),
        ]
    }

    init?(_ json: JSONValue) {
        guard case .array(let identities)? = json["identities"], let size = json["size"]?.integer(as: UInt64.self),
            let end = json["copied"]?.integer(as: UInt64.self)
        else { return nil }
        files = identities.compactMap { $0.text.flatMap { FileIdentity($0) } }
        guard files.count == identities.count else { return nil }
        (sizeBytes, endBytes) = (size, end)
    }
}
