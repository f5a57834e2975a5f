import ArgumentParser
import BlockStorage

/// What a command may open because an image names it, in every command that opens backing files.
struct BackingOptions: ParsableArguments {
    @Flag(help: "Refuse an image that names a backing file.")
    var noBacking = false

    @Option(
        name: .customLong("backing-dir"),
        help: ArgumentHelp(
            "Open only backing files that lie in this directory or below it, wherever symbolic links lead. Can be "
                + "given several times.", valueName: "dir"),
        transform: BackingOptions.directory)
    var backingDirectories: [String] = []

    @Flag(help: "Let an image name a block device as its raw backing file.")
    var backingDevices = false

    func validate() throws {
        guard !noBacking || (backingDirectories.isEmpty && !backingDevices) else {
            throw ValidationError("--no-backing goes with neither --backing-dir nor --backing-devices")
        }
    }

    /// Holds the directories open.
    func policy() throws(ImageFileError) -> BackingPolicy {
        var policy = BackingPolicy(refusesBackingFiles: noBacking, allowsBlockDevices: backingDevices)
        if !backingDirectories.isEmpty {
            policy.directories = try backingDirectories.map { path throws(ImageFileError) in try HeldDirectory(path) }
        }
        return policy
    }

    var isGiven: Bool { noBacking || backingDevices || !backingDirectories.isEmpty }

    /// The same options as arguments, for a process with another working directory.
    /// - Throws: why a directory cannot be found.
    func arguments() throws(ImageFileError) -> [String] {
        (noBacking ? ["--no-backing"] : []) + (backingDevices ? ["--backing-devices"] : [])
            + (try absoluteDirectories()).flatMap { ["--backing-dir", $0] }
    }

    func absoluteDirectories() throws(ImageFileError) -> [String] {
        try backingDirectories.map { path throws(ImageFileError) in try AbsolutePath.ofDirectory(path) }
    }

    private static func directory(_ text: String) throws(PathArgumentError) -> String {
        // A directory may end in a slash.
        _ = try PathArgument.parse(text.isEmpty ? text : text + "/.")
        return text
    }
}
