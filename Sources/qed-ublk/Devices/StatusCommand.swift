import ArgumentParser
import DeviceServer
import Platform

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show what a device is, as its server says.",
        discussion: """
            As JSON it is what the control socket answers: docs/control-socket.md.

            Example: qed-ublk status --json /dev/ublkb0 | jq .failed

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var argument: DeviceArgument

    @OptionGroup var output: OutputOption

    func run() throws {
        let status = try DeviceFigures.status(ofDeviceNamed: argument.device)
        switch output.format {
        case .human:
            guard case .object(let members) = status else { return }
            try printOutput(TextTable.lines(members.map { [$0.name, StatusCommand.text($0).printable] }))
        case .json: try printOutput(status.indented())
        }
    }

    private static func text(_ member: JSONValue.Member) -> String {
        if member.name == "base-away-since", let since = member.value.integer(as: Int.self), let time = TimeText.utc(since) {
            return time
        }
        return member.value.text ?? member.value.description
    }
}
