import BlockStorage

/// What devices need: without /proc a server that runs looks like one that has died, and its device would be taken away from
/// it.
struct ProcRequirement: ReportableError {
    /// - Throws: this, where /proc is not mounted.
    static func check() throws(ProcRequirement) {
        guard ProcessFiles.areVisible else { throw ProcRequirement() }
    }

    var exitStatus: ExitStatus { .failure }
    var description: String {
        "devices need /proc, to tell servers that run from those that have died; mount it (mount -t proc proc /proc)"
    }
}
