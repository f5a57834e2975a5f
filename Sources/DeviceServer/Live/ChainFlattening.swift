import BlockStorage
import CSupport
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// A device's image gets everything that it has of the files beneath it, while the device works, and then names none of them any
/// more. They stay as they are.
///
/// 1. The first queue copies, cluster by cluster, beside its requests: what hides in the image what lies beneath it is what was
///    there (`EngineQueue.copyUp`).
/// 2. What was copied becomes durable, and then the header says that there is no backing file.
/// 3. All queues get to know of it, while they are quiet.
///
/// Killed or without power between any two steps the disk reads as it did: until the header has changed the files are there, and
/// from then on nobody needs them. Doing it again goes on from what the image has.
struct ChainFlattening: Sendable {
    let device: LiveDevice
    let progress: MergeProgress
    private var session: ImageSession { device.session }

    /// - Returns: the paths of the files that the image needs no more, the newest first; none where it lay over none.
    func run() throws(FlatteningError) -> [String] {
        progress.begin()
        defer { progress.end() }
        let image = try device.changing { () throws(FlatteningError) in try begin() }
        guard session.chain.count > 1 else { return [] }
        try copy(image) { $0 }
        // No entry of an image becomes 0 again, so there is nothing left. What is given up is worth a second look.
        try copy(image) { _ in 1 }
        return try device.changing { () throws(FlatteningError) in try finish(image) }
    }

    private func begin() throws(FlatteningError) -> Image {
        try settle()
        let image = session.image
        guard !image.isReadOnly else { throw .cannot("\(session.path) is only read; nothing is copied into it") }
        return image
    }

    private func settle() throws(FlatteningError) {
        do throws(SnapshotError) { try Snapshot(device).settle() } catch { throw .cannot("\(error)") }
    }

    // MARK: - The copy

    /// - Parameter share: of all that there is to do, by that of the disk.
    private func copy(_ image: Image, _ share: (Double) -> Double) throws(FlatteningError) {
        var position: UInt64? = 0
        while let start = position {
            position = try device.changing { () throws(FlatteningError) in try copyPiece(image, from: start) }
            let done = position.map { min(Double($0) / Double(image.sizeBytes), 1) } ?? 1
            guard progress.goesOn(share(done)) else { throw .cancelled }
            // Whoever waits for its turn to change something is to get it, and this thread is quick to take it again.
            cs_sleep_milliseconds(1)
        }
    }

    private func copyPiece(_ image: Image, from start: UInt64) throws(FlatteningError) -> UInt64? {
        try expect(image)
        let copied = device.onFirstQueue { queue -> Result<UInt64?, RequestError> in
            do throws(RequestError) { return .success(try await queue.copyUp(from: start)) } catch { return .failure(error) }
        }
        switch copied {
        case .success(let next): return next
        case .failure(let error):
            throw .cannot("\(session.path): \(error.errno); it reads as before, and running it again goes on from there")
        case nil: throw .busy("queue 0 does not answer")
        }
    }

    /// What was copied is in the image that was the top when this began.
    private func expect(_ image: Image) throws(FlatteningError) {
        guard session.image === image else {
            throw .cannot("a snapshot of \(session.path) was taken meanwhile, and has what was copied; run it again")
        }
    }

    // MARK: - The end

    private func finish(_ image: Image) throws(FlatteningError) -> [String] {
        try settle()
        try expect(image)
        let chain = session.chain
        let next: NextChain
        do throws(Errno) { next = try NextChain.of(onlyImage: image) } catch {
            throw .cannot("no memory for the tables of \(session.path): \(error)")
        }
        // Until the queues know of it, a server may find the one or the other.
        do throws(RegistryError) { try device.note { $0.nextBackingFiles = [] } } catch { throw .cannot("\(error)") }
        do throws(OwnWorkError) {
            try device.onFirstQueue(changing: { queue throws(HeaderChangeError) in try await queue.forgetBackingFile() })
        } catch {
            switch error {
            case .noAnswer: throw .busy("queue 0 does not answer")
            case .header(let error):
                throw .cannot("\(session.path) has everything, and may still name its backing file: \(error); run it again")
            }
        }
        let device = device
        let replacement = ChainReplacement(
            next: next, files: [LayerFile(file: chain[0].file, layer: next.layers[0])]
        ) {
            try? device.note { record in
                record.backingFiles = []
                record.base = nil
                record.nextBackingFiles = nil
            }
        }
        do throws(QueueSilence) { try device.replaceChainWhenQuiet(replacement) } catch {
            throw .busy(
                "\(session.path) needs no backing file any more, but the device still has those that it had: \(error); run it "
                    + "again")
        }
        return chain.dropFirst().map(\.source.path)
    }
}

/// Why an image still lies over others, in a sentence.
enum FlatteningError: Error, CustomStringConvertible {
    case cannot(String)
    case busy(String)
    case cancelled

    var description: String {
        switch self {
        case .cannot(let sentence), .busy(let sentence): sentence
        case .cancelled: "it was cancelled; what was copied stays in the image, which reads as before"
        }
    }

    var reply: ControlReply {
        switch self {
        case .cannot, .cancelled: .failure(.failed, description)
        case .busy: .failure(.busy, description)
        }
    }
}
