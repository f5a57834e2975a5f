import Simulation

/// Judges the operations of a round: whether each sector can have been a register that took every write and answered
/// every read at one moment while it was under way.
struct HistoryCheck {
    /// Whether every write must have been done once. Else it may have been done several times until it was answered, as by
    /// a kernel below that begins a direct write again; then what was seen of it meanwhile says nothing of its order.
    var isStrict = false
    /// Sectors that were read in parts: the disk below may write a sector while it is read. Each part must be what the whole
    /// sector could have been.
    private(set) var tornSectors = 0
    private(set) var sectorsRead = 0

    private enum Event {
        case start(Int)
        case end(Int)
    }

    /// - Returns: the first contradiction; nil where there is none.
    mutating func violation(in operations: [Operation], initial: [UInt64]) -> String? {
        var history = SectorHistory(sizeBytes: UInt64(initial.count * 512)) { initial[$0] }
        var events: [(time: Int, event: Event)] = []
        for (index, operation) in operations.enumerated() {
            events.append((operation.start, .start(index)))
            events.append((operation.end, .end(index)))
        }
        events.sort { $0.time < $1.time }
        // The history counts events on its own.
        var starts = [Int](repeating: 0, count: operations.count)
        for (_, event) in events {
            let now = history.advance()
            switch event {
            case .start(let index):
                starts[index] = now
                begin(operations[index], in: &history, at: now)
            case .end(let index):
                let operation = operations[index]
                if operation.kind == .read {
                    if let violation = answer(operation, start: starts[index], in: &history) { return violation }
                } else if operation.changes {
                    // A discard may leave a sector as it was.
                    let replaces = operation.kind != .discard
                    for sector in operation.sectors {
                        history.end(sector, request: operation.request, at: now, replaces: replaces)
                    }
                }
            }
        }
        return nil
    }

    private func begin(_ operation: Operation, in history: inout SectorHistory, at now: Int) {
        guard operation.changes else { return }
        for sector in operation.sectors {
            history.begin(sector, value: operation.value(ofSector: sector), at: now, request: operation.request)
            if operation.mayRepeat || !isStrict { history.metFault(sector, request: operation.request) }
        }
    }

    private mutating func answer(_ read: Operation, start: Int, in history: inout SectorHistory) -> String? {
        for (sector, value) in zip(read.sectors, read.values) {
            sectorsRead += 1
            var isAllowed = history.read(sector, value, start: start)
            if !isAllowed, let parts = read.torn[sector] {
                tornSectors += 1
                isAllowed = parts.allSatisfy { history.mayRead(sector, $0, start: start) }
            }
            guard isAllowed else {
                return "sector \(sector) was read as \(String(value, radix: 16)) from event \(start) on; "
                    + history.explain(sector)
            }
        }
        return nil
    }
}
