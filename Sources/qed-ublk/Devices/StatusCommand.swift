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
            try printOutput(TextTable.lines(members.map { [$0.name, ($0.value.text ?? $0.value.description).printable] }))
        case .json: try printOutput(status.indented())
        }
    }
}
