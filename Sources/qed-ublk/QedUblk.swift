import ArgumentParser
import CSupport
import DeviceServer
import Logging

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
            CommitCommand.self, RebaseCommand.self, FlattenCommand.self, WarmCommand.self, CompactCommand.self,
            AddCommand.self, ListCommand.self, StatusCommand.self, StatsCommand.self, TopCommand.self, MetricsCommand.self,
            SnapshotCommand.self, ForkCommand.self, RollbackCommand.self, SnapshotsCommand.self, DelCommand.self,
            RecoverCommand.self, DoctorCommand.self,
            CacheCommand.self, BenchCommand.self,
        ])

    static func main() {
        cs_reserve_standard_descriptors()
        cs_allow_many_open_files()
        WaitingImages.protect()
        do {
            let arguments = ProcessArguments.all.dropFirst()
            switch arguments.first {
            // Started by `add`, not by users.
            case "serve": try serve(Array(arguments.dropFirst()))
            case "supervise": try supervise(Array(arguments.dropFirst()))
            // Started by a server.
            case "own-disk": OwnDiskProcess.main(Array(arguments.dropFirst()))
            // Started by qed-ublk-users.socket.
            case "disk-users": UsersProcess.main()
            case "broker":
                LoggingSystem.bootstrap(PrintableLog.standardError)
                BrokerProcess.main(Array(arguments.dropFirst()), log: Logger(label: "qed-ublk"))
            default:
                var command = try parse(arguments)
                try command.run()
            }
        } catch {
            exit(after: error)
        }
    }

    private static func serve(_ arguments: [String]) throws {
        LoggingSystem.bootstrap(PrintableLog.standardError)
        let ending = try ServeProcess.run(arguments, log: Logger(label: "qed-ublk")) { ExitStatus(after: $0).rawValue }
        if ending == .left { throw ExitCode(ExitStatus.left.rawValue) }
    }

    private static func supervise(_ arguments: [String]) throws {
        switch try SupervisingProcess.run(arguments) {
        case .done: break
        case .left: throw ExitCode(ExitStatus.left.rawValue)
        case .serverFailed: throw ExitCode(ExitStatus.failure.rawValue)
        }
    }

    /// The command that is asked for. Its own parser starts faster than that of all commands, which is left with help and
    /// refusals.
    private static func parse(_ arguments: ArraySlice<String>) throws -> any ParsableCommand {
        let named = configuration.subcommands.first { $0.configuration.commandName == arguments.first }
        if let named, let command = try? named.parseAsRoot(Array(arguments.dropFirst())) { return command }
        guard !arguments.isEmpty else { throw ValidationError("a command is needed, such as 'list'") }
        // The parser would print the overview, as if that had been asked for.
        if arguments.first == "help" {
            for name in arguments.dropFirst() where !name.hasPrefix("-") {
                guard configuration.subcommands.contains(where: { $0.configuration.commandName == name }) else {
                    throw ValidationError("there is no command '\(name)' to help with")
                }
            }
        }
        return try parseAsRoot(Array(arguments))
    }
}
