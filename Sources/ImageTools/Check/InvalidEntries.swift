import QEDFormat

/// Neighbouring entries of one table that cannot be right.
public struct InvalidEntry: Sendable, Equatable {
    /// The part of the device that they map, clipped to the image's size; empty behind it.
    public var deviceRange: Range<UInt64>
    public var isL1: Bool
    /// The value of the first of them, and what is wrong with it.
    public var value: UInt64
    public var reason: InvalidEntryReason
    public var count: UInt64 = 1
}

/// Entries that cannot be right: all of them counted, the first ones listed.
struct InvalidEntries: Sendable {
    private(set) var count: UInt64 = 0
    private(set) var list: [InvalidEntry] = []

    mutating func note(
        l2Entry value: UInt64, _ reason: InvalidEntryReason, ofCluster cluster: UInt64, _ header: QEDHeader
    ) {
        let geometry = header.geometry
        note(value, reason, cluster, of: geometry.clusterSizeBytes, isL1: false, header)
    }

    mutating func note(l1Entry value: UInt64, _ reason: InvalidEntryReason, _ index: Int, _ header: QEDHeader) {
        let geometry = header.geometry
        note(value, reason, UInt64(index), of: geometry.bytesPerL2Table, isL1: true, header)
    }

    /// - Parameter number: of the part of the device that the entry maps, counted in parts of `byteCount`.
    private mutating func note(
        _ value: UInt64, _ reason: InvalidEntryReason, _ number: UInt64, of byteCount: UInt64, isL1: Bool,
        _ header: QEDHeader
    ) {
        count += 1
        let imageSize = header.imageSizeBytes
        // Tables can have entries for more than 2^64 bytes.
        func offset(_ number: UInt64) -> UInt64 {
            let (offset, overflow) = number.multipliedReportingOverflow(by: byteCount)
            return overflow ? imageSize : min(offset, imageSize)
        }
        let range = offset(number)..<offset(number + 1)
        if let last = list.last, last.isL1 == isL1, last.reason == reason,
            last.deviceRange.upperBound == range.lowerBound, !isL1
        {
            list[list.count - 1].deviceRange = last.deviceRange.lowerBound..<range.upperBound
            list[list.count - 1].count += 1
        } else if list.count < CheckReport.listLimit {
            list.append(InvalidEntry(deviceRange: range, isL1: isL1, value: value, reason: reason))
        }
    }
}
