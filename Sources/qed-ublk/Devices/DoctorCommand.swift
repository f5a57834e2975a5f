import ArgumentParser
import DeviceServer
import Platform

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Look at what devices need of this machine, and what is wrong with those that there are.",
        discussion: """
            A line for each thing: 'good'; 'note', something that another kernel could do; 'warning', something that wants \
            somebody's attention; 'trouble', for which no device can be served; and what to do about it. Nothing is changed, but \
            the kernel's module is loaded where it was not, as 'add' does it. Of what belongs to others only root sees all.

            Where a device has lost its server, what is mounted from it, swap on it and images that lie there are named, however \
            many devices are in between; they are not touched, since who does that waits. What 'add' is refused for is said in \
            the same words there.

            Example: qed-ublk doctor --json | jq '.[] | select(.verdict == "trouble")'

            Exit status:
            \(ExitStatus.tableOfTool([.success: "nothing needs to be done", .failure: "something does: a warning, or trouble"],
                without: [.unusableImage, .busy, .notFound, .noPermission]))
            """)

    @OptionGroup var output: OutputOption

    func run() throws {
        let findings = Doctor.findings()
        switch output.format {
        case .human:
            try printOutput(
                TextTable.lines(
                    findings.map { finding in
                        let remedy = finding.remedy.map { "; \($0)" } ?? ""
                        return [finding.verdict.rawValue, finding.subject, (finding.sentence + remedy).printable]
                    }))
        case .json: try printOutput(JSONValue.array(findings.map(\.json)).indented())
        }
        guard findings.allSatisfy({ $0.verdict < .warning }) else { throw ExitCode(ExitStatus.failure.rawValue) }
    }
}
