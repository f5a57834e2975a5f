import ArgumentParser
import BlockStorage
import DeviceServer
import Glibc
import Platform

/// What `add` can be told about the device.
struct DeviceOptions: ParsableArguments {
    @Argument(help: "The image.", completion: .file(), transform: PathArgument.parse)
    var image: String

    @Option(
        name: [.customShort("q"), .long],
        help: ArgumentHelp(
            "Hardware queues, each with a thread; no more than there are processors. (default: 4, or fewer processors)",
            valueName: "queues"))
    var queues: Int?

    @Option(
        name: [.customShort("d"), .long],
        help: ArgumentHelp(
            "Requests under way per queue: 1 to 4096. Up to 64 their buffers take 32 MiB, or less. (default: 64)",
            valueName: "depth"))
    var depth: Int?

    @Option(
        name: [.customShort("b"), .long],
        help: ArgumentHelp(
            """
            The device's logical block size: 512 or 4096. With 4096 the image's file can be accessed past the page cache on \
            btrfs and on disks with sectors of 4096 bytes too; 'info' says how it will be. (default: 512, or 4096 where the \
            image's partition table was made for that)
            """,
            valueName: "bytes"))
    var blockSize: Int?

    @Option(name: [.customShort("n"), .long], help: "The device's number: 0 makes /dev/ublkb0. Without it the next free one.")
    var id: UInt32?

    @Option(
        help: ArgumentHelp(
            """
            A name for the device: /dev/qed/NAME leads to it. Letters, digits and any of :_.@+- ; what else there is as \\x and \
            two digits.
            """, valueName: "name"), transform: DeviceName.parse)
    var name: DeviceName?

    @Option(
        help: ArgumentHelp(
            """
            A symbolic link that leads to the device, and goes with it, wherever you like. Nothing may be there, but a link to a \
            /dev/ublkbN that is gone.
            """, valueName: "path"), completion: .file(), transform: PathArgument.parse)
    var symlink: String?

    @Flag(
        inversion: .prefixedNo,
        help: "Whether partitions on it become disks of their own, /dev/ublkb0p1. (default: --partscan)")
    var partscan: Bool?

    @Flag(
        help: """
            For an image from somebody else: nothing of the system looks at what is on it by itself (partitions, file systems, \
            LVM, RAID), it may name no backing file but in a directory of --backing-dir, and it is served by a process without \
            rights, which takes no snapshots (docs/security.md).
            """)
    var untrusted = false

    @Flag(name: [.customShort("r"), .long], help: "Serve it read-only: the image changes by nothing but --copy-on-read.")
    var readOnly = false

    @Flag(
        help: """
            Throw away what is written to it: it goes to an overlay in TMPDIR or /var/tmp that is removed with the device, and \
            the image stays as it is.
            """)
    var snapshot = false

    @Flag(help: "Let the device end with its server, instead of waiting for the next one (see 'recover').")
    var noRecovery = false

    @Flag(
        help: """
            Serve the image even though the log of a server that has died is not here, and what that had acknowledged is \
            lost; or a copy that was made while its image was in use.
            """)
    var force = false

    @Option(
        help: """
            Whether data goes between the device's requests and the image without being copied: auto, on or off. Needs \
            Linux 6.16. With auto it does where the kernel can and the image is accessed past the page cache. (default: auto)
            """)
    var zeroCopy: ZeroCopyChoice?

    @Option(
        help: ArgumentHelp(
            """
            Memory for the tables of the image and its backing files, 1M to 1G; used as far as they are read. 1M holds those of \
            8G, with the usual clusters; what does not fit is read again. (default: 32M)
            """, valueName: "size"), transform: SizeArgument.parse)
    var cacheSize: UInt64?

    @Flag(
        help: """
            Keep in the image what is read from the file, or base elsewhere, at the bottom of its chain, in whole clusters: it \
            is read from there once.
            """)
    var copyOnRead = false

    @Option(
        help: ArgumentHelp(
            """
            What --copy-on-read keeps takes about so much at most, 16M or more: then what was kept first, and not read lately, \
            goes. For an image made for that, with --read-only (docs/bases.md).
            """, valueName: "size"), transform: SizeArgument.parse)
    var keepLimit: UInt64?

    @Option(
        help: ArgumentHelp(
            """
            Write down in FILE, which is made, or is empty, which ranges are read from there, and when, for --prefetch and \
            'warm' (docs/bases.md).
            """, valueName: "file"), completion: .file(), transform: PathArgument.parse)
    var record: String?

    @Option(
        help: ArgumentHelp(
            """
            Once the disk can be used, fetch from there what FILE says that another start has read, in the same order, beside \
            what is read meanwhile. With --copy-on-read.
            """, valueName: "file"), completion: .file(), transform: PathArgument.parse)
    var prefetch: String?

    @OptionGroup var backing: BackingOptions

    func validate() throws {
        guard !force || !readOnly || copyOnRead else {
            throw ValidationError("--force goes with an image that is written: leave out --read-only")
        }
        guard !snapshot || !(readOnly || force) else {
            throw ValidationError("with --snapshot the image is not written anyway: leave out --read-only and --force")
        }
        guard !snapshot || !(backing.noBacking || untrusted && backing.backingDirectories.isEmpty) else {
            throw ValidationError(
                "--snapshot puts an overlay over the image, which must be allowed as its backing file: leave out --no-backing, "
                    + "or say --backing-dir with the image's directory")
        }
        guard !copyOnRead || !snapshot else {
            throw ValidationError("--copy-on-read keeps what is read in the image: leave out --snapshot")
        }
        guard keepLimit == nil || copyOnRead && readOnly else {
            throw ValidationError(
                "--keep-limit lets go of what the image has: it is for --copy-on-read and --read-only together, so that nothing "
                    + "else is in it")
        }
        guard prefetch == nil || copyOnRead else {
            throw ValidationError("what --prefetch fetches is kept in the image: say --copy-on-read too")
        }
        guard !untrusted || record == nil && prefetch == nil else {
            throw ValidationError(
                "a server without rights has no files but the image's: leave out --untrusted, or --record and "
                    + "--prefetch")
        }
        guard !untrusted || keepLimit == nil else {
            throw ValidationError(
                "a server without rights can make no file in which to keep more: leave out --untrusted, or --keep-limit")
        }
        guard !untrusted || partscan != true else {
            throw ValidationError("--partscan has the kernel look at what is on the disk: leave out --untrusted")
        }
        guard !untrusted || !backing.backingDevices else {
            throw ValidationError("--backing-devices lets the image name any disk: leave out --untrusted")
        }
        guard !untrusted || backing.baseAllow.isEmpty && backing.baseTimeout == nil else {
            throw ValidationError("a server without rights can make no connections: leave out --untrusted, or --base-…")
        }
        let limits = ServerConfiguration.countLimits
        guard limits.contains(queues ?? 1) else { throw ValidationError("--queues must be between 1 and 4096") }
        guard limits.contains(depth ?? 1) else { throw ValidationError("--depth must be between 1 and 4096") }
        if let blockSize, !ServerConfiguration.blockSizes.contains(blockSize) {
            throw ValidationError("--block-size must be 512 or 4096")
        }
        if let keepLimit, !ServerConfiguration.keepLimits.contains(keepLimit) {
            throw ValidationError("--keep-limit must be 16M or more")
        }
        if let cacheSize, !ServerConfiguration.cacheLimits.contains(Int(clamping: cacheSize)) {
            throw ValidationError("--cache-size must be between 1M and 1G")
        }
    }

    private static var temporaryDirectory: String {
        let chosen = getenv("TMPDIR").map { String(cString: $0) } ?? ""
        return chosen.isEmpty ? "/var/tmp" : chosen
    }

    /// - Throws: why a directory of `--backing-dir` cannot be found: a server's working directory is not its caller's.
    func requested() throws(ImageFileError) -> RequestedDevice {
        var requested = RequestedDevice()
        requested.id = id
        requested.name = name
        requested.link = try symlink.map { path throws(ImageFileError) in try DeviceLink(path: AbsolutePath.ofFile(path)) }
        requested.scansPartitions = partscan
        requested.isUntrusted = untrusted
        requested.queues = queues
        requested.queueDepth = depth
        requested.blockSizeBytes = blockSize
        requested.isReadOnly = readOnly
        if snapshot { requested.throwAwayDirectory = DeviceOptions.temporaryDirectory }
        requested.isUnrecoverable = noRecovery
        requested.discardsLostSession = force
        requested.zeroCopy = zeroCopy
        requested.cacheBytes = cacheSize.map { Int(clamping: $0) }
        requested.keepsReads = copyOnRead
        requested.keepLimitBytes = keepLimit
        requested.recordPath = try record.map { path throws(ImageFileError) in try AbsolutePath.ofFile(path) }
        requested.prefetchPath = try prefetch.map { path throws(ImageFileError) in try AbsolutePath.ofFile(path) }
        requested.backing = try backing.absoluteChoice()
        if untrusted, requested.backing.directories.isEmpty { requested.backing.refusesBackingFiles = true }
        return requested
    }
}

extension ZeroCopyChoice: ExpressibleByArgument {}

extension DeviceName {
    /// - Throws: `ValidationError`.
    static func parse(_ text: String) throws -> DeviceName {
        guard let name = DeviceName(text) else {
            throw ValidationError(
                "'\(text.printable)' is no name for a device: letters, digits, any of :_.@+- , no dot in front, and no more than "
                    + "238 bytes")
        }
        return name
    }
}
