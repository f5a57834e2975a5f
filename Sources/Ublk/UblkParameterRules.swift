import Glibc

/// A rule of `SET_PARAMS` that parameters break. The driver answers each of them with a bare EINVAL, so they are
/// checked first.
public enum UblkParameterViolation: Error, Equatable, Sendable {
    case logicalBlockShift(UInt8, allowed: ClosedRange<UInt8>)
    case physicalBlockBelowLogical(physicalShift: UInt8, logicalShift: UInt8)
    /// One of the physical block, minimum I/O and optimal I/O sizes.
    case sizeAbove256MiB(name: String, shift: UInt8)
    case maxSectors(UInt32, allowed: ClosedRange<UInt32>)
    /// A buffer that holds less than a page.
    case ioSizeBelowPage(sizeBytes: Int)
    case discardGranularityZero
    case discardSegments(UInt16)
}

extension UblkParameterViolation: CustomStringConvertible {
    public var description: String {
        switch self {
        case .logicalBlockShift(let shift, let allowed):
            "a logical block of 2^\(shift) bytes is not possible: the kernel takes 2^\(allowed.lowerBound) to "
                + "2^\(allowed.upperBound)"
        case .physicalBlockBelowLogical(let physical, let logical):
            "the physical block (2^\(physical) bytes) must not be smaller than the logical block (2^\(logical) bytes)"
        case .sizeAbove256MiB(let name, let shift):
            "the \(name) of 2^\(shift) bytes is above the kernel's limit of 256 MiB"
        case .maxSectors(let sectors, let allowed):
            "requests of up to \(sectors) sectors are not possible: this device takes \(allowed.lowerBound) to "
                + "\(allowed.upperBound)"
        case .ioSizeBelowPage(let sizeBytes):
            "the device's I/O size of \(sizeBytes) bytes is less than a page"
        case .discardGranularityZero:
            "the discard granularity must not be 0"
        case .discardSegments(let segments):
            "discards of \(segments) segments are not possible: the kernel takes 1"
        }
    }
}

extension UblkParameters {
    /// Checks what the driver would refuse: the union of the rules of Linux 6.12 and 7.3.
    /// - Parameters:
    ///   - maxIOSizeBytes: the device's, as negotiated by `addDevice`.
    ///   - pageSizeBytes: the kernel's page size.
    public func validate(
        maxIOSizeBytes: Int, pageSizeBytes: Int = systemPageSizeBytes
    ) throws(UblkParameterViolation) {
        let pageShift = UInt8(clamping: pageSizeBytes.trailingZeroBitCount)
        let logicalShifts = 9...max(pageShift, 9)
        guard logicalShifts.contains(basic.logicalBlockShift) else {
            throw .logicalBlockShift(basic.logicalBlockShift, allowed: logicalShifts)
        }
        guard basic.physicalBlockShift >= basic.logicalBlockShift else {
            throw .physicalBlockBelowLogical(
                physicalShift: basic.physicalBlockShift, logicalShift: basic.logicalBlockShift)
        }
        let sizes = [
            ("physical block", basic.physicalBlockShift), ("minimum I/O size", basic.minimumIOShift),
            ("optimal I/O size", basic.optimalIOShift),
        ]
        for (name, shift) in sizes where shift > 28 { throw .sizeAbove256MiB(name: name, shift: shift) }

        let pageSectors = UInt32(clamping: pageSizeBytes / 512)
        let deviceSectors = UInt32(clamping: maxIOSizeBytes / 512)
        guard pageSectors <= deviceSectors else { throw .ioSizeBelowPage(sizeBytes: maxIOSizeBytes) }
        guard (pageSectors...deviceSectors).contains(basic.maxSectors) else {
            throw .maxSectors(basic.maxSectors, allowed: pageSectors...deviceSectors)
        }

        guard let discard else { return }
        guard discard.granularityBytes != 0 else { throw .discardGranularityZero }
        guard discard.maxDiscardSectors == 0 || discard.maxSegments == 1 else {
            throw .discardSegments(discard.maxSegments)
        }
    }
}

/// The kernel's page size, which the driver's limits and offsets depend on.
public var systemPageSizeBytes: Int { Int(sysconf(Int32(_SC_PAGESIZE))) }
