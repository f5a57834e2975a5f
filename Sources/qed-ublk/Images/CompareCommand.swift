import ArgumentParser
import BlockStorage
import DeviceServer
import ImageTools
import Platform
import QEDChain
import QEDEngine

struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Tell whether two disks have the same contents.",
        discussion: """
            What the smaller disk lacks counts as zeros, unless -s asks for equal sizes and equal allocation. Formats \
            are \
            never guessed.

            Example: qed-ublk compare -f raw -F qed disk.raw disk.qed

            Exit status:
            \(ComparisonStatus.table)
            """)

    @Argument(help: "A disk.", completion: .file(), transform: PathArgument.parse)
    var first: String

    @Argument(help: "Another.", completion: .file(), transform: PathArgument.parse)
    var second: String

    @Option(
        name: [.customShort("f"), .long], help: ArgumentHelp("What the first is: raw or qed.", valueName: "format"))
    var format = DiskFormat.qed

    @Option(
        name: [.customShort("F"), .long], help: ArgumentHelp("What the second is: raw or qed.", valueName: "format"))
    var secondFormat = DiskFormat.qed

    @Flag(name: [.customShort("s"), .long], help: "Sizes, and what is allocated, must be the same too.")
    var strict = false

    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var backing: BackingOptions
    @OptionGroup var progress: ProgressOptions

    func run() throws {
        let policy: BackingPolicy
        do throws(ImageFileError) { policy = try backing.policy() } catch {
            throw ComparisonFailure(error: .read(.file(error)))
        }
        let outcome: DiskComparison.Outcome
        do throws(ImageToolError) {
            let disks = (
                try Disk(
                    path: first, format: format, isReadOnly: true, sharing: sharing.forceShare, policy: policy),
                try Disk(
                    path: second, format: secondFormat, isReadOnly: true, sharing: sharing.forceShare, policy: policy)
            )
            outcome = try DiskComparison(disks.0, disks.1, isStrict: strict).run(progress: progress.bar)
        } catch {
            throw ComparisonFailure(error: error)
        }
        switch output.format {
        case .json: try printOutput(outcome.json.indented())
        case .human: if !progress.quiet { try printOutput(outcome.text) }
        }
        if !outcome.isIdentical { throw ExitCode(ComparisonStatus.different.rawValue) }
    }

    /// 1 means that the disks differ, so that errors, whatever they are, have another status.
    private struct ComparisonFailure: ReportableError {
        let error: ImageToolError
        var exitStatus: ExitStatus { .unusableImage }
        var description: String { "\(error)" }
    }
}

extension DiskComparison.Outcome {
    fileprivate var isIdentical: Bool { if case .identical = self { true } else { false } }

    /// As qemu-img says it.
    fileprivate var text: String {
        let warning = "Warning: Image size mismatch!\n"
        return switch self {
        case .identical(let sizesDiffer): (sizesDiffer ? warning : "") + "Images are identical."
        case .contentDiffers(let deviceOffset, let sizesDiffer):
            (sizesDiffer ? warning : "") + "Content mismatch at offset \(deviceOffset)!"
        case .sizesDiffer: "Strict mode: Image size mismatch!"
        case .allocationDiffers(let deviceOffset): "Strict mode: Offset \(deviceOffset) block status mismatch!"
        }
    }

    fileprivate var json: JSONValue {
        var members: [JSONValue.Member] = [.init("identical", .bool(isIdentical))]
        switch self {
        case .identical(let sizesDiffer): members.append(.init("size-mismatch", .bool(sizesDiffer)))
        case .contentDiffers(let deviceOffset, _):
            members += [.init("difference", "content"), .init("offset", JSONValue(deviceOffset))]
        case .sizesDiffer: members.append(.init("difference", "size"))
        case .allocationDiffers(let deviceOffset):
            members += [.init("difference", "allocation"), .init("offset", JSONValue(deviceOffset))]
        }
        return .object(members)
    }
}
