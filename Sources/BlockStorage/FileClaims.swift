import Platform

/// Rights to files that no lock stands for, because no process is there to hold one: those of devices that wait for a server.
/// Whoever changes such a file gives the device's users other data than they have left.
///
/// A program says once how they are found, before it opens files. From then on every file that is opened to be changed is
/// looked up, by whatever it is opened; so nothing that changes files has to think of it.
public enum FileClaims {
    private static let finder = Lock<@Sendable (FileIdentity) -> String?>({ _ in nil })

    /// - Parameter find: the path of the device that a file belongs to; nil where it is nobody's. Called on any thread.
    public static func areFound(by find: @escaping @Sendable (FileIdentity) -> String?) {
        finder.withLock { $0 = find }
    }

    static func claimant(of file: FileIdentity) -> String? {
        let find = finder.withLock { $0 }
        return find(file)
    }
}
