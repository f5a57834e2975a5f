import BlockStorage
import DeviceServer
import Platform

/// What commands that are about devices must have before they look at one.
enum DeviceRequirements {
    /// - Throws: `ProcMissing`, or `RegistryError` where the records are somebody else's.
    static func check() throws {
        guard ProcessFiles.areVisible else { throw ProcMissing() }
        try DeviceRegistry().checkOwner()
    }

    /// Without /proc a server that runs looks like one that has died, and its device would be taken away from it.
    struct ProcMissing: ReportableError {
        var exitStatus: ExitStatus { .failure }
        var description: String {
            "devices need /proc, to tell servers that run from those that have died; mount it (mount -t proc proc /proc)"
        }
    }
}
