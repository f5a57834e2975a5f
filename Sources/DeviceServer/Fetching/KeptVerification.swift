import CSupport
import QEDEngine

/// What a device's image has kept is compared with the base, while the device works: in pieces, between which whoever wants to
/// change something of the device gets his turn.
struct KeptVerification: Sendable {
    let device: LiveDevice
    let progress: MergeProgress

    /// After so long nothing more is begun in a piece, nanoseconds.
    private static let pieceNanoseconds: UInt64 = 500_000_000

    /// - Returns: how many bytes were compared, and where the first difference is, if any.
    func run() throws(WarmingError) -> (comparedBytes: UInt64, firstDifference: UInt64?) {
        guard device.keepsReads else { throw .keepsNothing(device.session.path) }
        var rest = FetchRanges([0..<device.session.image.sizeBytes])
        var comparedBytes: UInt64 = 0
        while !rest.isAtEnd {
            let piece = try device.changing { () throws(WarmingError) in try comparePiece(rest) }
            comparedBytes += piece.comparedBytes
            rest = piece.ranges
            if case .request(let error)? = piece.failure { throw .notCompared(device.session.path, error.errno) }
            if let difference = piece.firstDifference { return (comparedBytes, difference) }
            let share = rest.totalBytes > 0 ? Double(rest.passedBytes) / Double(rest.totalBytes) : 1
            guard progress.goesOn(share) else { throw .cancelledComparison(comparedBytes) }
            cs_sleep_milliseconds(1)
        }
        return (comparedBytes, nil)
    }

    private func comparePiece(_ rest: FetchRanges) throws(WarmingError) -> ComparedPiece {
        let progress = self.progress
        let piece = device.onFirstQueue { queue in
            let end = cs_monotonic_nanoseconds() + Self.pieceNanoseconds
            return await queue.compareKept(rest) { progress.isWanted && cs_monotonic_nanoseconds() < end }
        }
        guard let piece else { throw .noAnswer }
        return piece
    }
}
