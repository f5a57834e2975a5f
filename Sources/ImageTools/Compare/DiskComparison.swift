import Glibc
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
    private let firstBuffer = PageBuffer(byteCount: DiskComparison.batchBytes)
    private let secondBuffer = PageBuffer(byteCount: DiskComparison.batchBytes)

    private static let batchBytes = Disk.usualDepth * Disk.largestRequestBytes

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
        var position: UInt64 = 0
        while position < total {
            progress?(Double(position) / Double(total))
            let limit = position < common ? common : total
            let one = try position < first.sizeBytes ? maps.0.extent(at: position, limit: limit) : nil
            let two = try position < second.sizeBytes ? maps.1.extent(at: position, limit: limit) : nil
            let end = min(one?.end ?? limit, two?.end ?? limit)
            if isStrict, let one, let two, one.kind != two.kind { return .allocationDiffers(deviceOffset: position) }
            let difference = try firstDifference(
                position..<end, firstHasData: one?.kind == .data, secondHasData: two?.kind == .data)
            if let difference {
                return .contentDiffers(deviceOffset: difference, sizesDiffer: difference >= common && sizesDiffer)
            }
            position = end
        }
        progress?(1)
        return .identical(sizesDiffer: sizesDiffer)
    }

    private func firstDifference(
        _ range: Range<UInt64>, firstHasData: Bool, secondHasData: Bool
    ) throws(ImageToolError) -> UInt64? {
        guard firstHasData || secondHasData else { return nil }
        var position = range.lowerBound
        while position < range.upperBound {
            let count = Int(min(UInt64(DiskComparison.batchBytes), range.upperBound - position))
            if firstHasData { try first.read(position, byteCount: count, into: firstBuffer.address) }
            if secondHasData { try second.read(position, byteCount: count, into: secondBuffer.address) }
            let sector = Int(QEDLimits.sectorSizeBytes)
            let difference: Int?
            if firstHasData && secondHasData {
                difference =
                    memcmp(firstBuffer.address, secondBuffer.address, count) == 0
                    ? nil
                    : stride(from: 0, to: count, by: sector).first {
                        memcmp(firstBuffer.address + $0, secondBuffer.address + $0, min(sector, count - $0)) != 0
                    }
            } else {
                let buffer = firstHasData ? firstBuffer.address : secondBuffer.address
                difference =
                    Zeros.fill(buffer, count: count)
                    ? nil : Zeros.firstOther(buffer, count: count, blockBytes: sector)
            }
            if let difference { return position + UInt64(difference) }
            position += UInt64(count)
        }
        return nil
    }
}

extension Disk {
    /// Reads a range with as many requests at once as the disk takes.
    func read(_ deviceOffset: UInt64, byteCount: Int, into buffer: UnsafeMutableRawPointer) throws(ImageToolError) {
        try perform(
            stride(from: 0, to: byteCount, by: Disk.largestRequestBytes).map {
                BlockRequest(
                    .read, deviceOffset: deviceOffset + UInt64($0),
                    byteCount: UInt64(min(Disk.largestRequestBytes, byteCount - $0)), buffer: buffer + $0)
            })
    }
}
