import BlockStorage
import QEDFormat
import SystemPackage

/// The slow path: what a slot's task does with a request that could not be finished inline.
extension EngineQueue {
    /// - Returns: 0, or the negative errno that the request is answered with.
    func performSlowly(_ slot: Int) async -> Int32 {
        let request = slots[slot].request
        let needsOnlyCommit = slots[slot].needsOnlyCommit
        slots[slot].needsOnlyCommit = false
        if !needsOnlyCommit {
            let lent = borrowMemory(slot)
            guard lent == 0 else {
                abandonFill(slot)
                return lent
            }
        }
        do throws(RequestError) {
            if !needsOnlyCommit { try await perform(request, slot: slot) }
            if request.forcesUnitAccess { try await commit(slot: slot) }
            return 0
        } catch {
            return -error.errno.rawValue
        }
    }

    /// Gives up the fill that the inline path has planned for the slot's task.
    private func abandonFill(_ slot: Int) {
        guard let fill = slots[slot].fill else { return }
        slots[slot].fill = nil
        for waiter in image.abandon(fill) { waiter.resume(returning: 0) }
    }

    private func perform(_ request: BlockRequest, slot: Int) async throws(RequestError) {
        let range = request.deviceOffset..<request.end
        switch request.operation {
        case .read:
            guard let buffer = request.buffer else { throw .outOfRange }
            try await readSlowly(slot, range, into: buffer, fromLayer: 0)
        case .write:
            guard let buffer = request.buffer else { throw .outOfRange }
            try await writeSlowly(slot, range, from: buffer)
        case .writeZeroes:
            try await zeroSlowly(slot, range, isDiscard: false, keepsSpace: request.keepsSpace)
        case .discard:
            try await zeroSlowly(slot, range, isDiscard: true, keepsSpace: false)
        case .flush:
            try await commit(slot: slot)
        }
    }
}
