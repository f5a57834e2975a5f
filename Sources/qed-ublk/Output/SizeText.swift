/// Sizes for people.
enum SizeText {
    /// About three digits and a binary unit, as qemu-img writes them: 1.5 GiB, 260 KiB, 0.977 MiB.
    static func short(_ bytes: UInt64) -> String {
        var unit = 0
        while unit < units.count - 1, bytes >> UInt64(10 * unit) >= 1000 { unit += 1 }
        let value = Double(bytes) / Double(UInt64(1) << UInt64(10 * unit))
        let decimals = unit == 0 || value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3
        let scale = (0..<decimals).reduce(1) { scale, _ in scale * 10 }
        let scaled = Int((value * Double(scale)).rounded())
        var fraction = String(scaled % scale + scale).dropFirst()
        while fraction.last == "0" { fraction.removeLast() }
        return "\(scaled / scale)" + (fraction.isEmpty ? "" : ".\(fraction)") + " \(units[unit])"
    }

    /// The size in short and in full.
    static func long(_ bytes: UInt64) -> String {
        "\(short(bytes)) (\(bytes) bytes)"
    }

    private static let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
}
