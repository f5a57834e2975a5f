import ArgumentParser
import CSupport
import DeviceServer
import Glibc

struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Show what all devices are doing, again and again.",
        discussion: """
            For each device, the busiest first: reads, writes and flushes a second, what they read and wrote, syncs of the \
            image's file, and requests under way (BUSY). A device whose server does not answer has dashes.

            Keys, as in top: q ends, space and return show it at once.

            Example: qed-ublk top -b -n 1

            Exit status:
            \(ExitStatus.table)
            """)

    @Flag(name: [.customShort("b"), .customLong("batch")], help: "Print one picture after the other, for files and pipes.")
    var isBatch = false

    @Option(name: [.customShort("n"), .long], help: "End after so many.")
    var iterations: Int?

    @Option(name: [.customShort("d"), .long], help: "Seconds between them: from 0.1 to 3600.")
    var delay = 3.0

    func validate() throws {
        guard (0.1...3600).contains(delay) else { throw ValidationError("a delay is from 0.1 to 3600 seconds") }
        guard iterations.map({ $0 > 0 }) ?? true else { throw ValidationError("nothing is shown 0 times") }
    }

    func run() throws {
        var before = try DeviceSample.ofAll()
        let terminal = isBatch ? nil : Terminal()
        guard isBatch || terminal != nil else { throw ValidationError("no terminal to draw on: use --batch") }
        var shown = 0
        // The first picture soon.
        var milliseconds = min(delay * 1000, 1000)
        while iterations.map({ shown < $0 }) ?? true {
            if let terminal {
                switch terminal.wait(milliseconds: Int32(milliseconds)) {
                case .key(UInt8(ascii: "q")), .end: return
                case .key(UInt8(ascii: " ")), .key(UInt8(ascii: "\n")), .timeout: break
                case .key: continue
                }
            } else {
                usleep(UInt32(milliseconds * 1000))
            }
            let now = try DeviceSample.ofAll()
            let size = terminal?.size ?? (80, .max)
            let text = TopTable(from: before, to: now).text(
                time: TimeText.ofDay(time(nil)) ?? "?", columns: max(size.columns, 80), lineLimit: size.lines - 1)
            try printOutput((terminal != nil ? Terminal.home : shown > 0 ? "\n" : "") + text.dropLast())
            before = now
            shown += 1
            milliseconds = delay * 1000
        }
    }
}
