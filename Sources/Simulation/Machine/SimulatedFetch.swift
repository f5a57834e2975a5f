import QEDEngine

extension Machine {
    /// Begins to fetch a range of the disk from the bottom of the chain, a piece of it, beside the requests.
    /// - Returns: false where the first queue is held, or has other work of its own.
    func beginFetch(_ range: Range<UInt64>) -> Bool {
        guard let queue = queues.first, !queue.isHeld, !isFetching, merge == nil else { return false }
        isFetching = true
        let hasBegun = queue.engine.beginOwnWork { engine in
            _ = await engine.fetch(FetchRanges([range]))
            self.isFetching = false
        }
        if !hasBegun { isFetching = false }
        return hasBegun
    }
}
