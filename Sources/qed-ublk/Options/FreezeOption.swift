import ArgumentParser

/// Of the commands that keep what a device holds at a moment.
struct FreezeOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Freeze the file system on the disk that is mounted here while the snapshot is taken, as fsfreeze does: what is kept \
            of it is clean.
            """, valueName: "mount point"), transform: PathArgument.parse)
    var fsfreeze: String?
}
