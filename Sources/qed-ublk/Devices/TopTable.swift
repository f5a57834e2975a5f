import DeviceServer
import Glibc
import Platform

/// What `top` shows: a line for all devices, and one for each, the busiest first; none longer than the terminal.
struct TopTable {
    private var lines: [(title: [String], rates: DeviceRates?)] = []

    init(from before: [DeviceSample], to now: [DeviceSample]) {
        lines = now.map { sample in
            (
                [sample.device, sample.state, sample.image],
                DeviceRates(from: before.first { $0.device == sample.device }, to: sample)
            )
        }
        lines.sort { TopTable.weight($0.rates) > TopTable.weight($1.rates) }
    }

    private static func weight(_ rates: DeviceRates?) -> Double {
        rates.map { $0.readBytes + $0.writtenBytes + $0.flushes } ?? -1
    }

    /// - Parameters:
    ///   - time: of day.
    ///   - columns: of the terminal, at least 80.
    ///   - lineLimit: so many lines are shown, and how many devices have no place.
    func text(time: String, columns: Int, lineLimit: Int) -> String {
        let all = lines.compactMap(\.rates).reduce(DeviceRates(), +)
        let devices = lines.count == 1 ? "1 device" : "\(lines.count) devices"
        var rows = [
            "qed-ublk - \(time), \(devices), \(TopTable.count(all.reads)) reads/s, \(TopTable.count(all.writes)) writes/s, "
                + "\(all.underWay) under way",
            "",
            TopTable.row(["DEVICE", "STATE", "READ/S", "WRIT/S", "READ", "WRITE", "FLSH/S", "SYNC/S", "BUSY", "IMAGE"], columns),
        ]
        let place = max(lineLimit - rows.count, 1)
        let shown = lines.count <= place ? lines.count : place - 1
        for (title, rates) in lines.prefix(shown) {
            let cells =
                rates.map {
                    [
                        TopTable.count($0.reads), TopTable.count($0.writes), TopTable.bytes($0.readBytes),
                        TopTable.bytes($0.writtenBytes), TopTable.count($0.flushes), TopTable.count($0.syncs), "\($0.underWay)",
                    ]
                } ?? Array(repeating: "-", count: 7)
            rows.append(TopTable.row([title[0], title[1]] + cells + [title[2].printable], columns))
        }
        if shown < lines.count { rows.append("and \(lines.count - shown) more") }
        return rows.map { String($0.prefix(columns)) + "\n" }.joined()
    }

    /// The first two to the left, then numbers to the right, and as much of the last one's end as there is room for.
    private static func row(_ cells: [String], _ columns: Int) -> String {
        let widths = [8, 7, 6, 6, 6, 6, 6, 6, 4]
        var line = ""
        for (number, (cell, width)) in zip(cells, widths).enumerated() {
            let space = String(repeating: " ", count: max(width - cell.count, 0))
            line += (number < 2 ? cell + space : space + cell) + " "
        }
        let last = cells[widths.count]
        let room = max(columns - line.count - 1, 1)
        return line + " " + (last.count <= room ? last : "<" + last.suffix(room - 1))
    }

    /// Three digits.
    static func count(_ value: Double) -> String { short(value, 1000, ["", "k", "M", "G"]) }
    static func bytes(_ value: Double) -> String { short(value, 1024, ["B", "K", "M", "G", "T"]) }

    private static func short(_ value: Double, _ base: Double, _ units: [String]) -> String {
        var (value, unit) = (value, 0)
        while value >= 999.5, unit < units.count - 1 {
            value /= base
            unit += 1
        }
        let decimals = value >= 99.95 || value == value.rounded() ? 0 : value >= 9.995 ? 1 : 2
        let scale = [1.0, 10.0, 100.0][decimals]
        let scaled = Int((value * scale).rounded())
        var digits = "\(scaled)"
        if decimals > 0 {
            digits = String(repeating: "0", count: max(decimals + 1 - digits.count, 0)) + digits
            digits.insert(".", at: digits.index(digits.endIndex, offsetBy: -decimals))
        }
        return digits + units[unit]
    }
}
