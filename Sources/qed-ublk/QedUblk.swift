import ArgumentParser
import CSupport

/// Raised with each release.
enum Version {
    static let text = "0.1.0"
}

@main
struct QedUblk: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qed-ublk",
        abstract: "Serve QED disk images as block devices.",
        discussion: "Exit status:\n\(ExitStatus.table)",
        version: Version.text,
        subcommands: [
            CreateCommand.self, InfoCommand.self, CheckCommand.self, MapCommand.self, MeasureCommand.self,
            CompareCommand.self, ConvertCommand.self, IOCommand.self, ResizeCommand.self,
            CommitCommand.self, RebaseCommand.self, FlattenCommand.self, CompactCommand.self,
            AddCommand.self, ListCommand.self, DelCommand.self, RecoverCommand.self, BenchCommand.self,
            ServeCommand.self, SuperviseCommand.self,
        ])

    static func main() {
        cs_reserve_standard_descriptors()
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            exit(after: error)
        }
    }
}
