import QEDEngine
import QEDFormat

/// The one snapshot beneath a machine's image, which has nothing that the bottom has not, is taken away: first the image's header
/// names the bottom, durably, then the queues read it, then the file is gone.
enum SimulatedForgetting {
    case underWay
    /// The header names the bottom, durably.
    case named
    case failed

    /// What the image calls the bottom from then on.
    static let bottomName = "bottom"
}

extension Machine {
    /// Begins it.
    /// - Returns: false where the first queue has other work of its own.
    func beginForgetting() throws -> Bool {
        precondition(sealed.count == 1 && backing.first?.isRaw == true && lower == nil, "not between an image and a raw bottom")
        let name = try BackingFileName(Array(SimulatedForgetting.bottomName.utf8))
        let hasBegun = queues[0].engine.beginOwnWork { queue in
            do throws(HeaderChangeError) {
                try await queue.changeHeader(.backingFile(name, isRaw: true))
                self.forgetting = .named
            } catch {
                self.forgetting = .failed
            }
        }
        if hasBegun { forgetting = .underWay }
        return hasBegun
    }

    /// The queues read the bottom. While all are quiet.
    func finishForgetting() throws {
        guard let image, forgetting == .named, isQuiet else { preconditionFailure("a header that does not say so yet") }
        image.replaceChain(try NextChain.of(image, withoutKept: 1))
        sealed = []
        topName = SimulatedForgetting.bottomName
        replaceEngines(for: image)
        forgetting = nil
    }
}
