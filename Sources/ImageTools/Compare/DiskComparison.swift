import QEDEngine
import QEDFormat

/// Compares the contents of two disks. A part that one of them lacks counts as zeros.
public struct DiskComparison {
    public enum Outcome: Sendable, Equatable {
        case identical(sizesDiffer: Bool)
        /// The first sector that differs.
        case contentDiffers(deviceOffset: UInt64, sizesDiffer: Bool)
        /// Strict only.
        case sizesDiffer
        /// Strict only: one has data where the other has none, or one has zeros where the other has nothing.
        case allocationDiffers(deviceOffset: UInt64)
    }

    let first: Disk
    let second: Disk
    let isStrict: Bool

    /// - Parameter isStrict: sizes and allocation must be the same too.
    public init(_ first: Disk, _ second: Disk, isStrict: Bool) {
        self.first = first
        self.second = second
        self.isStrict = isStrict
    }

    public func run(progress: (@Sendable (Double) -> Void)? = nil) throws(ImageToolError) -> Outcome {
        let sizesDiffer = first.sizeBytes != second.sizeBytes
        if isStrict && sizesDiffer { return .sizesDiffer }
        let common = min(first.sizeBytes, second.sizeBytes)
        let total = max(first.sizeBytes, second.sizeBytes)
        let maps = (try first.map(), try second.map())
        let reading = PairedReading(first, second)
        // No buffer may be freed while a request is under way.
        defer { reading.drain() }
        var position: UInt64 = 0
        var allocationDifference: UInt64?
        while position < total, reading.firstDifference == nil, allocationDifference == nil {
            progress?(Double(position) / Double(total))
            let limit = position < common ? common : total
            let one = try position < first.sizeBytes ? maps.0.extent(at: position, limit: limit) : nil
            let two = try position < second.sizeBytes ? maps.1.extent(at: position, limit: limit) : nil
            let end = min(one?.end ?? limit, two?.end ?? limit)
            if isStrict, let one, let two, one.kind != two.kind {
                allocationDifference = position
            } else {
                try reading.compare(
                    position..<end, firstHasData: one?.kind == .data, secondHasData: two?.kind == .data)
            }
            position = end
        }
        try reading.finish()
        if let difference = reading.firstDifference {
            return .contentDiffers(deviceOffset: difference, sizesDiffer: difference >= common && sizesDiffer)
        }
        if let allocationDifference { return .allocationDiffers(deviceOffset: allocationDifference) }
        progress?(1)
        return .identical(sizesDiffer: sizesDiffer)
    }
}
