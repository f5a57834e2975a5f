import BlockStorage
import QEDEngine
import SystemPackage

/// What lies beneath a machine's image is copied into it while it is served, piece by piece; then the header names no backing
/// file any more, and then the queues read none.
final class SimulatedFlattening {
    enum Phase: Equatable {
        case copying(from: UInt64)
        /// A piece of that.
        case underWay
        case copied
        case forgetting
        /// The header names nothing, durably.
        case forgotten
        /// Something has failed: it can begin again.
        case failed
    }

    var phase = Phase.copying(from: 0)
}

extension Machine {
    /// Takes the next step of it, in the background, where there is one to take.
    func goOnFlattening() {
        guard let flattening else { preconditionFailure("nothing is flattened") }
        let queue = queues[0].engine
        // SAFETY: a simulation has one thread.
        nonisolated(unsafe) let state = flattening
        switch flattening.phase {
        case .copying(let start):
            state.phase = .underWay
            begin(on: queue) { queue in
                do throws(RequestError) {
                    state.phase = try await queue.copyUp(from: start).map { .copying(from: $0) } ?? .copied
                } catch {
                    state.phase = .failed
                }
            }
        case .copied:
            state.phase = .forgetting
            begin(on: queue) { queue in
                do throws(HeaderChangeError) {
                    try await queue.forgetBackingFile()
                    state.phase = .forgotten
                } catch {
                    state.phase = .failed
                }
            }
        case .underWay, .forgetting, .forgotten, .failed: break
        }
    }

    private func begin(
        on queue: EngineQueue<SimulatedStorage>, _ body: @escaping (EngineQueue<SimulatedStorage>) async -> Void
    ) {
        let hasBegun = queue.beginOwnWork(body)
        precondition(hasBegun, "a queue does two things of its own at once")
    }

    /// The image's queues read no file beneath it any more. While all are quiet.
    func finishFlattening() throws {
        guard let image, flattening?.phase == .forgotten, isQuiet else { preconditionFailure("a copy that is not at its end") }
        image.replaceChain(try NextChain.of(onlyImage: image))
        sealed = []
        backing = []
        topName = ""
        replaceEngines(for: image)
        flattening = nil
    }
}
