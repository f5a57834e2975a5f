/// What some ranges of a device hold for certain.
struct DeviceContent {
    let ranges: [Range<Int>]
    private var values: [Int: UInt64] = [:]

    /// - Parameter values: of all sectors of `ranges`, in their order.
    init(_ ranges: [Range<Int>], _ values: [UInt64]) {
        self.ranges = ranges
        for (sector, value) in zip(ranges.joined(), values) { self.values[sector] = value }
    }

    subscript(sector: Int) -> UInt64 {
        get { values[sector] ?? 0 }
        set { values[sector] = newValue }
    }

    func allows(_ sector: Int, _ value: UInt64) -> Bool { values[sector] == value }
    func explain(_ sector: Int) -> String { "expected \(String(self[sector], radix: 16))" }
}
