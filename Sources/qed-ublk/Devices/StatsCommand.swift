import ArgumentParser
import DeviceServer
import Platform

struct StatsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show what a device was asked for, and what that took.",
        discussion: """
            Counted by its server since that began: requests (under-way: at this moment; turns: how often a queue's thread has \
            entered the kernel; largest-under-way: the most that one queue had, in one turn of eight), and what became of them \
            in the image's files, by purpose. For the whole device, and beside it for each queue, unless there are more than 64.

            The cache holds pages of tables, of 4096 bytes: l2, of the image's L2 tables; chain, of what all files of a chain \
            say together. Misses are reads and writes that waited for a page, hits all others that were started.

            Latencies are of the requests that came in one turn of eight, from their arrival to their answer: p99 is what 99 of \
            100 did not exceed, p100 the longest. Commits make durable what was written; syncs are those of the image's file, \
            for commits and for whatever else needs one. Their percentiles are right to an eighth, p100 exactly.

            Example: qed-ublk stats --json /dev/ublkb0 | jq '."storage-operations".fsyncs'

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var argument: DeviceArgument

    @Flag(
        help: """
            First let the requests that are under way end on all queues at once, which then go on; and show how long new ones \
            have waited for that.
            """)
    var quiesce = false

    @OptionGroup var output: OutputOption

    func run() throws {
        let figures = try DeviceFigures.ofDevice(named: argument.device, quiesces: quiesce)
        switch output.format {
        case .human: try printOutput(StatsCommand.table(figures))
        case .json: try printOutput(figures.indented())
        }
    }

    /// A line for each figure that is known, of a group of groups.
    private static func times(_ name: String, _ figures: JSONValue?) -> [[String]] {
        guard case .object(let kinds)? = figures else { return [] }
        let rows = kinds.flatMap { kind -> [[String]] in
            guard case .object(let members) = kind.value else { return [] }
            return members.filter { $0.value != .null }.map { ["\(kind.name)-\($0.name)", $0.value.description] }
        }
        return [[name.uppercased()]] + rows
    }

    private static func cache(_ figures: JSONValue?) -> [[String]] {
        guard case .object(let members)? = figures else { return [] }
        var rows = [["CACHE"]] + members.map { [$0.name, $0.value.description] }
        let (hits, misses) = (count(figures, "hits"), count(figures, "misses"))
        if hits + misses > 0 {
            // Rounded down: 100 says that nothing was missed.
            let hundredths = (10_000 * hits / (hits + misses)).rounded(.down)
            rows.append(["hit-percent", BenchRun.fixed(hundredths / 100, digits: 2)])
        }
        return rows
    }

    /// What each page that was written has saved; "-" where none was.
    private static func entriesPerWrite(_ operations: JSONValue?) -> String {
        let pages = count(operations, "l2-page-writes")
        return pages == 0 ? "-" : BenchRun.fixed(count(operations, "l2-entries-written") / pages, digits: 1)
    }

    private static func count(_ figures: JSONValue?, _ name: String) -> Double {
        Double(figures?[name]?.integer(as: UInt64.self) ?? 0)
    }

    /// A line for each counter: its name, the device's figure and, where there are several queues, that of each.
    static func table(_ figures: JSONValue) -> String {
        var queues: [JSONValue] = []
        if case .array(let list)? = figures["queues"], list.count > 1 { queues = list }
        var rows = [[figures["device"]?.text ?? "", "TOTAL"] + queues.indices.map { "QUEUE \($0)" }]
        for group in ["requests", "storage-operations"] {
            guard case .object(let counters)? = figures[group] else { continue }
            rows.append([group.uppercased()])
            for counter in counters {
                rows.append(
                    [counter.name, counter.value.description] + queues.map { $0[group]?[counter.name]?.description ?? "?" })
            }
        }
        if figures["storage-operations"] != nil {
            rows.append(["l2-entries-per-write"] + ([figures] + queues).map { entriesPerWrite($0["storage-operations"]) })
        }
        rows += cache(figures["cache"])
        for group in ["latency-microseconds", "commit-microseconds"] { rows += times(group, figures[group]) }
        if let state = figures["base-state"]?.text { rows += [["BASE"], ["base-state", state]] }
        if let since = figures["base-away-since"]?.integer(as: Int.self) {
            rows.append(["base-away-since", TimeText.utc(since) ?? "\(since)"])
        }
        if let pause = figures["quiesce-microseconds"] { rows.append(["quiesce-microseconds", pause.description]) }
        let columns = rows[0].count
        let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            var line = row[0]
            for (column, cell) in row.enumerated().dropFirst() {
                if column == 1 { line += String(repeating: " ", count: widths[0] - row[0].count) }
                line += String(repeating: " ", count: widths[column] - cell.count + 2) + cell
            }
            return line
        }.joined(separator: "\n")
    }
}
