import Glibc
import SystemPackage

/// Whose a file is, and who may do what with it: what a file keeps that takes the place of another one.
public struct FileOwnership: Equatable, Sendable {
    private let owner: uid_t
    private let group: gid_t
    private let mode: mode_t

    /// Of an open file.
    public init(of descriptor: Int32) throws(Errno) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw Errno(rawValue: errno) }
        owner = status.st_uid
        group = status.st_gid
        mode = status.st_mode & 0o7777
    }

    /// Gives another open file the same. Whoever is not root can give it to no other user.
    public func give(to descriptor: Int32) throws(Errno) {
        let own = try FileOwnership(of: descriptor)
        if own.owner != owner || own.group != group, fchown(descriptor, owner, group) != 0 { throw Errno(rawValue: errno) }
        // After the change of the owner, which takes bits away.
        guard fchmod(descriptor, mode) == 0 else { throw Errno(rawValue: errno) }
    }
}
