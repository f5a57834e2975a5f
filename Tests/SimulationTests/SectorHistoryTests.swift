import Testing

@testable import Simulation

/// The checker itself: histories that no register can have, and their neighbours that one can.
@Suite struct SectorHistoryTests {
    /// A line of a history, for sector 0, in the order of time.
    enum Event {
        case begin(Int, UInt64)
        /// The answer to a write; a failed one need not have happened.
        case end(Int, succeeds: Bool = true)
        case beginRead(String)
        /// The answer to a read.
        case read(String, UInt64)
        case fault(Int)
        case kill
    }

    /// - Returns: the index of the first read that is refused.
    private func firstRefused(_ events: [Event]) -> Int? {
        var history = SectorHistory(sizeBytes: 512) { _ in 0xba5e }
        var readStarts: [String: Int] = [:]
        for (index, event) in events.enumerated() {
            let time = history.advance()
            switch event {
            case .begin(let request, let value): history.begin(0, value: value, at: time, request: request)
            case .end(let request, let succeeds): history.end(0, request: request, at: time, replaces: succeeds)
            case .beginRead(let name): readStarts[name] = time
            case .read(let name, let value):
                if !history.read(0, value, start: readStarts[name] ?? time) { return index }
            case .fault(let request): history.metFault(0, request: request)
            case .kill: history.processKilled()
            }
        }
        return nil
    }

    @Test(
        "histories that no order explains",
        arguments: [
            // A value that was never written.
            [.read("a", 7)],
            // Overwritten for good.
            [.begin(1, 10), .end(1), .begin(2, 20), .end(2), .read("a", 10)],
            // The initial value, after a write was answered.
            [.begin(1, 10), .end(1), .read("a", 0xba5e)],
            // Back to the value before, though both writes overlapped.
            [.begin(1, 10), .begin(2, 20), .end(1), .end(2), .read("a", 20), .read("b", 10)],
            // Back to the initial value while the write is under way.
            [.begin(1, 10), .read("a", 10), .read("b", 0xba5e)],
            // There and back again.
            [.begin(1, 10), .begin(2, 20), .read("a", 10), .read("b", 20), .read("c", 10)],
            // The same, while both writes are answered in between.
            [.begin(1, 10), .begin(2, 20), .read("a", 10), .end(1), .read("b", 20), .end(2), .read("c", 10)],
            // A write that was overwritten before it was answered, read after the other had been seen.
            [.begin(1, 10), .begin(2, 20), .end(2), .read("a", 10), .end(1), .read("b", 20)],
            // A read that overlaps the one before may see the older value; one that begins after it may not.
            [.begin(1, 10), .beginRead("a"), .read("b", 10), .beginRead("c"), .read("a", 0xba5e), .read("c", 0xba5e)],
            // A third write is between them for certain.
            [.begin(1, 10), .begin(2, 20), .end(1), .begin(3, 30), .end(3), .read("a", 20), .end(2), .read("b", 10)],
            // A failed write that was seen, and then what it had replaced.
            [.begin(1, 10), .end(1, succeeds: false), .read("a", 10), .read("b", 0xba5e)],
            // What was under way when the process died, and was not there afterwards, does not come later.
            [.begin(1, 10), .kill, .read("a", 0xba5e), .read("b", 10)],
            // What was there afterwards stays.
            [.begin(1, 10), .begin(2, 20), .kill, .read("a", 10), .read("b", 20)],
            // Zeros of one writer only: the other's had been overwritten.
            [.begin(1, 0), .end(1), .begin(2, 20), .end(2), .begin(3, 0), .read("a", 0), .read("b", 20)],
        ] as [[Event]])
    func refused(_ events: [Event]) {
        #expect(firstRefused(events) == events.count - 1)
    }

    @Test(
        "histories that an order explains",
        arguments: [
            [.read("a", 0xba5e)],
            // Either of two that overlap.
            [.begin(1, 10), .begin(2, 20), .end(1), .end(2), .read("a", 10), .read("b", 10)],
            [.begin(1, 10), .begin(2, 20), .end(1), .end(2), .read("a", 20), .read("b", 20)],
            // One after the other, both seen.
            [.begin(1, 10), .begin(2, 20), .read("a", 10), .read("b", 20), .end(1), .end(2), .read("c", 20)],
            // Reads beside each other may see either.
            [.begin(1, 10), .beginRead("a"), .read("b", 10), .read("a", 0xba5e)],
            [.begin(1, 10), .read("a", 0xba5e), .read("b", 10), .end(1)],
            // A failed write may have happened, or not.
            [.begin(1, 10), .end(1, succeeds: false), .read("a", 0xba5e), .read("b", 0xba5e)],
            [.begin(1, 10), .end(1, succeeds: false), .read("a", 10), .read("b", 10)],
            [.begin(1, 10), .kill, .read("a", 10), .read("b", 10)],
            // Zeros of two writers: nobody knows whose.
            [.begin(1, 0), .begin(2, 0), .begin(3, 30), .read("a", 0), .read("b", 30), .read("c", 0)],
            // A write that met a fault is done twice.
            [.begin(1, 10), .begin(2, 20), .fault(1), .read("a", 10), .read("b", 20), .read("c", 10), .end(1), .end(2)],
        ] as [[Event]])
    func allowed(_ events: [Event]) {
        #expect(firstRefused(events) == nil)
    }

    /// What was flushed is gone only for something newer; overlapping writes are in the order that reads have seen.
    @Test func survivors() {
        var history = SectorHistory(sizeBytes: 512) { _ in 0 }
        func time() -> Int { history.advance() }
        history.begin(0, value: 10, at: time(), request: 1)
        history.begin(0, value: 20, at: time(), request: 2)
        history.end(0, request: 1, at: time(), replaces: true)
        history.end(0, request: 2, at: time(), replaces: true)
        #expect(history.maySurvive(0, 0) && history.maySurvive(0, 10) && history.maySurvive(0, 20))
        history.flushed(start: time())
        #expect(!history.maySurvive(0, 0))
        #expect(history.maySurvive(0, 10) && history.maySurvive(0, 20))
        let start = time()
        _ = time()
        let isAllowed = history.read(0, 20, start: start)
        #expect(isAllowed)
        #expect(!history.maySurvive(0, 10), "a read has seen that 20 is the newer one")
        #expect(history.maySurvive(0, 20))
        history.begin(0, value: 30, at: time(), request: 3)
        #expect(history.maySurvive(0, 20) && history.maySurvive(0, 30))
    }
}
