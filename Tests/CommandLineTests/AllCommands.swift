import ArgumentParser

@testable import qed_ublk

extension QedUblk {
    /// Each command that does something, by the words that it is called with.
    static var allCommands: [(name: String, type: any ParsableCommand.Type)] {
        configuration.subcommands.flatMap { command -> [(name: String, type: any ParsableCommand.Type)] in
            let name = command.configuration.commandName ?? ""
            let parts = command.configuration.subcommands
            if parts.isEmpty { return [(name, command)] }
            return parts.map { ("\(name) \($0.configuration.commandName ?? "")", $0) }
        }
    }
}
