import ArgumentParser
import DeviceServer
import ImageTools
import Platform

/// How a command shows what it has found.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
    case human
    case json
}

/// `--output` as qemu-img has it.
struct OutputOption: ParsableArguments {
    @Option(help: ArgumentHelp("How to show the result: human or json. (default: human)", valueName: "format"))
    var output: OutputFormat?

    @Flag(help: "The same as --output json.")
    var json = false

    func validate() throws {
        guard !json || output != .human else { throw ValidationError("--json and --output human exclude each other") }
    }

    var format: OutputFormat { json ? .json : output ?? .human }

    /// Prints what a command has done: `members` as JSON, or `sentence` for people.
    func report(_ sentence: String?, _ members: [JSONValue.Member], quiet: Bool) throws(OutputError) {
        switch format {
        case .json: try printOutput(JSONValue.object(members).indented())
        case .human: if let sentence, !quiet { try printOutput(sentence) }
        }
    }
}

/// `-U`: read beside a program that has the image.
struct SharingOption: ParsableArguments {
    @Flag(
        name: [.customShort("U"), .long],
        help:
            "Take no lock: read even an image that another program is changing; what is read may then be inconsistent.")
    var forceShare = false
}

/// `-p` and `-q`.
struct ProgressOptions: ParsableArguments {
    @Flag(name: [.customShort("p"), .long], help: "Show progress, where standard error is a terminal.")
    var progress = false

    @Flag(name: [.customShort("q"), .long], help: "Print nothing but errors.")
    var quiet = false

    /// What to tell how far the work is; nil where nobody would see it.
    var bar: (@Sendable (Double) -> Void)? { progress && !quiet ? ProgressBar.make() : nil }
}

/// A format on the command line: raw or qed.
extension DiskFormat: ExpressibleByArgument {}
