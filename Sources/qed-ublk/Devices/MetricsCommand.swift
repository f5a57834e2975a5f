import ArgumentParser
import DeviceServer
import SystemPackage

struct MetricsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics",
        abstract: "Write what all devices have counted, for Prometheus.",
        discussion: """
            In the text format of Prometheus: what 'list' and 'stats' show, for every device. Counters begin at 0 with each \
            server. A device whose server does not answer has 'up' 0, and no counters.

            With --file it is written to a file, whole or not at all, as the textfile collector of node_exporter wants it: run \
            it from a timer.

            Example: qed-ublk metrics --file /var/lib/prometheus/node-exporter/qed.prom

            Exit status:
            \(ExitStatus.table)
            """)

    @Option(
        help: ArgumentHelp("Write to this file, and take the place of one that is there.", valueName: "path"),
        completion: .file(), transform: PathArgument.parse)
    var file: String?

    func run() throws {
        let text = try DeviceMetrics.text()
        guard let file else {
            // Without a device there is nothing to say, not even an empty line.
            if !text.isEmpty { try printOutput(String(text.dropLast())) }
            return
        }
        try TextFile.replace(file, with: text)
    }
}

extension TextFileError: ReportableError {
    var exitStatus: ExitStatus {
        switch errno {
        case .noSuchFileOrDirectory: .notFound
        case .permissionDenied, .notPermitted: .noPermission
        default: .failure
        }
    }
}
