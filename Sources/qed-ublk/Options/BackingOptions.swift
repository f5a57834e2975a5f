import ArgumentParser
import BlockStorage
import DeviceServer

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

    @Option(
        help: ArgumentHelp(
            """
            Let an image name a base elsewhere whose address fits: nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH. In the \
            pattern * stands for anything. Can be given several times; /etc/qed-ublk/base-allow has one in each line.
            """, valueName: "pattern"), transform: BackingOptions.pattern)
    var baseAllow: [String] = []

    @Option(
        help: ArgumentHelp(
            """
            Seconds until a read fails that a base elsewhere does not answer; 0: it waits, however long. What the image itself \
            has is read meanwhile. (default: \(BackingPolicy.usualBaseTimeoutSeconds))
            """, valueName: "seconds"))
    var baseTimeout: UInt32?

    func validate() throws {
        guard !noBacking || (backingDirectories.isEmpty && !backingDevices && baseAllow.isEmpty && baseTimeout == nil) else {
            throw ValidationError("--no-backing goes with neither --backing-dir, --backing-devices nor --base-…")
        }
    }

    /// Holds the directories open.
    func policy() throws(ImageFileError) -> BackingPolicy { try choice(in: backingDirectories).policy() }

    var isGiven: Bool {
        noBacking || backingDevices || !backingDirectories.isEmpty || !baseAllow.isEmpty || baseTimeout != nil
    }

    /// Of a command that is about a device: what its image may open was said when it was added.
    func refuseOfDevice() throws {
        guard isGiven else { return }
        throw ValidationError(
            "a device's image may open what it was added with: leave --no-backing, --backing-… and --base-… out")
    }

    /// For a process with another working directory.
    /// - Throws: why a directory cannot be found.
    func absoluteChoice() throws(ImageFileError) -> BackingChoice {
        choice(
            in: try backingDirectories.map { path throws(ImageFileError) in try AbsolutePath.ofDirectory(path) })
    }

    private func choice(in directories: [String]) -> BackingChoice {
        BackingChoice(
            refusesBackingFiles: noBacking, allowsBlockDevices: backingDevices, directories: directories, bases: baseAllow,
            baseTimeoutSeconds: baseTimeout)
    }

    private static func pattern(_ text: String) throws -> String {
        guard !text.isEmpty else { throw ValidationError("--base-allow needs a pattern; '*' allows every address") }
        return text
    }

    private static func directory(_ text: String) throws(PathArgumentError) -> String {
        // A directory may end in a slash.
        _ = try PathArgument.parse(text.isEmpty ? text : text + "/.")
        return text
    }
}
