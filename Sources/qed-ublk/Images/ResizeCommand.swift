import ArgumentParser
import DeviceServer
import ImageTools
import Platform

struct ResizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resize",
        abstract: "Give a disk another size.",
        discussion: """
            The size is the new one, or with + or - in front the difference. What a disk gains reads as zeros, even \
            where \
            a backing file is longer. Shrinking loses what lies behind the new end and gives its space back, so it \
            needs \
            --shrink; shrink file systems and partitions first, and run 'qed-ublk compact' if the file shall be short \
            too. Put -- in front of the file when the size begins with -.

            The disk of a device (/dev/ublkb0) grows while it works; then let its file system grow (resize2fs, xfs_growfs). It \
            needs Linux 6.16.

            Example: qed-ublk resize disk.qed +10G
            Example: qed-ublk resize /dev/ublkb0 20G

            Exit status:
            \(ExitStatus.tableOfTool([.usage: "wrong usage, or a size that the image cannot have"]))
            """)

    @Argument(help: "The disk, or a device: /dev/ublkb0, ublkb0, 0.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Argument(help: "The new size, such as 20G, +1G or -1G.", transform: ResizeCommand.parse)
    var size: ImageResize.Change

    @Flag(help: "Allow a smaller size.")
    var shrink = false

    @Option(name: [.customShort("f"), .long], help: ArgumentHelp("What the file is: raw or qed.", valueName: "format"))
    var format = DiskFormat.qed

    @OptionGroup var backing: BackingOptions
    @OptionGroup var output: OutputOption

    @Flag(name: [.customShort("q"), .long], help: "Print nothing but errors.")
    var quiet = false

    static func parse(_ text: String) throws -> ImageResize.Change {
        switch text.first {
        case "+": .by(try SizeArgument.parse(String(text.dropFirst())))
        case "-": .less(try SizeArgument.parse(String(text.dropFirst())))
        default: .to(try SizeArgument.parse(text))
        }
    }

    private var isOfDevice: Bool { DeviceReference(file).isDevice }

    func validate() throws {
        guard isOfDevice else { return }
        guard !shrink, format == .qed, !backing.isGiven else {
            throw ValidationError(
                "the disk of a device only grows, and its image is what it is: leave --shrink, -f and --backing-… out")
        }
        if case .less = size { throw ValidationError("the disk of a device only grows; remove the device, and resize its image") }
    }

    private func resizeDisk() throws -> UInt64 {
        switch size {
        case .to(let bytes): try DeviceResize.run(deviceNamed: file, to: bytes, isDifference: false)
        case .by(let bytes): try DeviceResize.run(deviceNamed: file, to: bytes, isDifference: true)
        case .less: preconditionFailure("refused before")
        }
    }

    func run() throws {
        if isOfDevice {
            let size = try resizeDisk()
            return try output.report(
                "Disk resized.", [.init("device", .string(file)), .init("size", JSONValue(size))], quiet: quiet)
        }
        let size = try ImageResize(
            path: file, format: format, change: self.size, allowsShrinking: shrink, policy: try backing.policy()
        ).run()
        try output.report(
            "Image resized.", [.init("filename", .string(file)), .init("virtual-size", JSONValue(size))], quiet: quiet)
    }
}
