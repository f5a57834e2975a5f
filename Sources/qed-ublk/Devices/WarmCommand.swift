import ArgumentParser
import BlockStorage
import DeviceServer
import Platform

struct WarmCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "warm",
        abstract: "Fetch what a device's image does not have yet of the base at the bottom of its chain.",
        discussion: """
            The device was added with --copy-on-read, and works meanwhile. The whole disk is fetched, or a range of it, or what \
            a file of 'add --record' has, in its order; from then on that is read without the base. Where the file system of the \
            image would keep too little free for what is written to the disk it ends. Where this command is ended it goes on; \
            --cancel ends it.

            Example: qed-ublk warm -p /dev/ublkb0
            Example: qed-ublk warm --offset 1M --length 2M /dev/ublkb0

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var device: DeviceArgument

    @Option(
        help: ArgumentHelp("Where the range begins. (default: 0)", valueName: "size"), transform: SizeArgument.parse)
    var offset: UInt64?

    @Option(
        help: ArgumentHelp("How long it is. (default: up to the disk's end)", valueName: "size"), transform: SizeArgument.parse)
    var length: UInt64?

    @Option(
        help: ArgumentHelp("A file of 'add --record'.", valueName: "file"), completion: .file(),
        transform: PathArgument.parse)
    var ranges: String?

    @OptionGroup var change: LiveChangeOptions
    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    func validate() throws {
        try change.refuse(beside: offset != nil || length != nil || ranges != nil || progress.progress)
        guard ranges == nil || offset == nil && length == nil else {
            throw ValidationError("--ranges says what to fetch: leave out --offset and --length")
        }
    }

    func run() throws {
        if let change = change.change { return try DeviceCommit.change(deviceNamed: device.device, change) }
        let part: ControlRequest.WarmPart
        if let ranges {
            part = .recorded(path: try AbsolutePath.ofFile(ranges))
        } else {
            part = .range(deviceOffset: offset ?? 0, lengthBytes: length)
        }
        let answer = try DeviceWarming.run(deviceNamed: device.device, part, progress: progress.bar)
        if output.format == .json { return try printOutput(answer.indented()) }
        guard !progress.quiet else { return }
        let bytes = answer["fetched"]?.integer(as: UInt64.self) ?? 0
        try printOutput("\(answer["image"]?.text ?? ""): has \(bytes) bytes more of what lies beneath it.")
    }
}
