import ArgumentParser
import DeviceServer
import ImageTools
import Platform

struct CompactCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact",
        abstract: "Make the file of an image as short as it can be.",
        discussion: """
            Clusters that hold nothing but zeros are given up; all data is read for that. Clusters at the end move into those \
            that nothing refers to, and the file is cut behind the last. It can be interrupted and run again. The disk's \
            contents stay; the backing file is not looked at.

            Example: qed-ublk compact -p disk.qed

            Exit status:
            \(ExitStatus.tableOfTool([.failure: "an I/O error; run it again", .notFound: "file not found"]))
            """)

    @Argument(help: "The image.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    func run() throws {
        let outcome = try ImageCompaction(path: file).run(progress: progress.bar)
        try output.report(
            "\(outcome.freedClusters) clusters of zeros freed, \(outcome.movedClusters) clusters moved; "
                + "the file has \(outcome.fileSizeBytes) bytes, \(outcome.fileSizeBytesBefore) before.",
            [
                .init("filename", .string(file)), .init("freed-clusters", JSONValue(outcome.freedClusters)),
                .init("moved-clusters", JSONValue(outcome.movedClusters)),
                .init("file-size-before", JSONValue(outcome.fileSizeBytesBefore)),
                .init("file-size", JSONValue(outcome.fileSizeBytes)),
            ], quiet: progress.quiet)
    }
}
