import Glibc
import SystemPackage

/// One extension of a file: what its file system is asked for, and what it is asked for next where that is refused.
///
/// A value that does no I/O; `SpaceExtender` performs the steps. Nothing behind `start` is anybody's, so it may be zeroed.
struct FileExtension: Equatable {
    enum Step: Equatable {
        /// Space that holds zeros, written ahead.
        case zeroedSpace
        /// Space that reads as zeros.
        case space
        /// The new length alone: a file system without fallocate finds the space when it is written.
        case lengthAlone
    }

    enum Verdict: Equatable {
        /// Take the step, which is another one now, or reaches less far.
        case tryAgain
        case giveUp(Errno)
    }

    let start: UInt64
    /// Reaching less is of no use.
    let leastEnd: UInt64
    private(set) var end: UInt64
    private(set) var step: Step
    private let clusterSizeBytes: UInt64

    /// - Parameter zeroes: whether the space should hold zeros: see `FreshSpaceZeroing`.
    init(from start: UInt64, to end: UInt64, atLeast leastEnd: UInt64, zeroes: Bool, clusterSizeBytes: UInt64) {
        precondition(start < leastEnd && leastEnd <= end, "an extension by nothing, or by less than is needed")
        precondition([start, leastEnd, end].allSatisfy { $0 % clusterSizeBytes == 0 }, "an extension by parts of clusters")
        self.start = start
        self.leastEnd = leastEnd
        self.end = end
        self.clusterSizeBytes = clusterSizeBytes
        step = zeroes ? .zeroedSpace : .space
    }

    var byteCount: UInt64 { end - start }

    /// The step was refused.
    mutating func refused(_ errno: Errno) -> Verdict {
        defer { precondition(leastEnd <= end && end % clusterSizeBytes == 0, "an extension that reaches less than is needed") }
        guard step != .lengthAlone else { return .giveUp(errno) }
        switch errno {
        case .notSupported where step == .zeroedSpace:
            step = .space
        case .notSupported, Errno(rawValue: ENOSYS):
            step = .lengthAlone
        case .noSpace, .fileTooLarge, Errno(rawValue: EDQUOT):
            guard end > leastEnd else { return .giveUp(errno) }
            // What is there may do for now; the next extension asks for more.
            end = max(leastEnd, start + byteCount / 2 / clusterSizeBytes * clusterSizeBytes)
        default:
            return .giveUp(errno)
        }
        return .tryAgain
    }
}
