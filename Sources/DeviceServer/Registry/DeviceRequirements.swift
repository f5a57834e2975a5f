import Platform

/// What whoever asks about devices must have before it looks at one.
public enum DeviceRequirements {
    /// - Throws: `ProcMissing`, or `RegistryError` where the records are somebody else's.
    package static func check() throws {
        guard ProcessFiles.areVisible else { throw ProcMissing() }
        try DeviceRegistry().checkOwner()
    }

    /// Without /proc a server that runs looks like one that has died, and its device would be taken away from it.
    public struct ProcMissing: Error, CustomStringConvertible {
        var diagnosis: Diagnosis {
            Diagnosis(
                "devices need /proc, to tell servers that run from those that have died",
                remedy: "mount it (mount -t proc proc /proc)")
        }
        public var description: String { "\(diagnosis)" }
    }
}
