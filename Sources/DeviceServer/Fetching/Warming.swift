import CSupport
import QEDChain
import QEDEngine
import SystemPackage

/// A device's image gets what it does not have yet of ranges of the disk from the bottom of its chain, while the device works:
/// from then on they are read without that.
///
/// The first queue fetches, as its own work, in pieces that end soon (`EngineQueue.fetch`). Whoever wants to change something of
/// the device gets his turn between two of them: after a snapshot the new image gets what is left, and what the old one has lies
/// beneath it.
struct Warming: Sendable {
    let device: LiveDevice
    let progress: MergeProgress
    /// What the disk's users read meanwhile is more urgent.
    let isBackground: Bool

    /// After so long nothing more is begun in a piece, nanoseconds.
    private static let pieceNanoseconds: UInt64 = 500_000_000

    /// - Parameter ranges: of the disk.
    /// - Returns: how many bytes were fetched.
    func run(_ ranges: [Range<UInt64>]) throws(WarmingError) -> UInt64 {
        guard device.keepsReads else { throw .keepsNothing(device.session.path) }
        var rest = FetchRanges(ranges)
        var fetchedBytes: UInt64 = 0
        while !rest.isAtEnd {
            let piece = try device.changing { () throws(WarmingError) in try fetchPiece(rest) }
            fetchedBytes += piece.fetchedBytes
            if case .noRoom? = piece.failure, let limit = device.keepLimitBytes {
                guard fetchedBytes < limit / 2 else { throw .limited(device.session.path, fetchedBytes) }
                // What did not find room is in these ranges still.
                if try makeRoom(fetchedBytes) { continue }
            }
            rest = piece.ranges
            switch piece.failure {
            case .noRoom: throw .noRoom(device.session.path, fetchedBytes)
            case .request(let error): throw .failed(device.session.path, error.errno, fetchedBytes)
            case nil: break
            }
            let share = rest.totalBytes > 0 ? Double(rest.passedBytes) / Double(rest.totalBytes) : 1
            guard progress.goesOn(share) else { throw .cancelled(fetchedBytes) }
            // As for a flatten: whoever waits for its turn is to get it.
            cs_sleep_milliseconds(1)
        }
        return fetchedBytes
    }

    /// - Returns: false: it is the file system that has none.
    private func makeRoom(_ fetchedBytes: UInt64) throws(WarmingError) -> Bool {
        let image = device.session.image
        guard image.wantsRoomForReads else { return false }
        do throws(SnapshotError) { try KeptRoom(device).make(insteadOf: image) } catch {
            throw .noRoomMade("\(error)", fetchedBytes)
        }
        return true
    }

    private func fetchPiece(_ rest: FetchRanges) throws(WarmingError) -> FetchedPiece {
        let (progress, isBackground) = (self.progress, self.isBackground)
        let piece = device.onFirstQueue { queue in
            let end = cs_monotonic_nanoseconds() + Self.pieceNanoseconds
            return await queue.fetch(rest, isBackground: isBackground) {
                progress.isWanted && cs_monotonic_nanoseconds() < end
            }
        }
        guard let piece else { throw .noAnswer }
        return piece
    }
}

/// Why not everything was fetched, in a sentence.
enum WarmingError: Error, CustomStringConvertible {
    case keepsNothing(String)
    case noRoom(String, UInt64)
    /// As much as one that keeps a bounded part may have at once.
    case limited(String, UInt64)
    case noRoomMade(String, UInt64)
    case failed(String, Errno, UInt64)
    case cancelled(UInt64)
    case notCompared(String, Errno)
    case cancelledComparison(UInt64)
    case noAnswer

    var description: String {
        switch self {
        case .keepsNothing(let path):
            "the device of \(path) was added without --copy-on-read, so its image keeps nothing of what lies beneath it; add it "
                + "with that"
        case .noRoom(let path, let bytes):
            "the file system of \(path) has no more room than is left to what is written to the disk; \(bytes) bytes were "
                + "fetched, and stay in the image"
        case .limited(let path, let bytes):
            "\(path) keeps no more at once than --keep-limit says; \(bytes) bytes were fetched, and stay until others are read"
        case .noRoomMade(let reason, let bytes): "\(reason); \(bytes) bytes were fetched, and stay in the image"
        case .failed(let path, let errno, let bytes):
            "\(path): \(errno); \(bytes) bytes were fetched, and stay in the image; running it again goes on from there"
        case .cancelled(let bytes): "it was cancelled; \(bytes) bytes were fetched, and stay in the image"
        case .notCompared(let path, let errno): "\(path) cannot be compared with its base: \(errno)"
        case .cancelledComparison(let bytes): "it was cancelled; \(bytes) bytes are what the base has"
        case .noAnswer: "queue 0 does not answer"
        }
    }

    var reply: ControlReply {
        switch self {
        case .keepsNothing: .failure(.unavailable, description)
        case .noRoom, .limited, .noRoomMade, .failed, .cancelled, .notCompared, .cancelledComparison:
            .failure(.failed, description)
        case .noAnswer: .failure(.busy, description)
        }
    }
}
