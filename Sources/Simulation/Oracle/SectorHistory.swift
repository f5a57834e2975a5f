/// What each sector of the device may read as: the model that the engine is compared with.
///
/// A value is a 64-bit number; a sector that holds it holds it 64 times. 0 is a sector of zeros; every write gives every
/// sector a value of its own. Times are counted in events.
///
/// Each sector is a register, and its reads and writes must be linearizable: as if each had happened at one moment
/// between its request and its answer. So a value is known to be older than another when its write, or a read that saw
/// it, had been answered before the other's write, or a read that saw that, began. A read is refused when the value that
/// it returns would be both older and newer than another: pair by pair this is all there is to check where every write
/// has a value of its own (Gibbons and Korach, "Testing Shared Memories", 1997). Zeros have many writers: a read of
/// zeros tells which one only when no other is possible.
///
/// A value may survive a power cut as long as nothing newer is durable.
package struct SectorHistory {
    struct Version {
        var value: UInt64
        var start: Int
        /// When the request was answered, or `Int.max`.
        var end = Int.max
        /// The request succeeded: what it wrote takes the place of what was before.
        var replaces = false
        var forcesUnitAccess = false
        var request: Int
        /// A read that saw it was the first to be answered then, or `Int.max`.
        var firstSeenBy = Int.max
        /// The last read that saw it began then, or `Int.min`.
        var lastSeenFrom = Int.min
        /// The disk failed an operation while the request was under way: what it wrote may be written again until it is
        /// answered, so seeing it says nothing.
        var mayRepeat = false
        /// A sync that failed may have lost it: it reads, and no flush makes it durable.
        var mayBeLost = false

        /// It was current at some moment up to this one.
        @inline(__always) var happenedBy: Int { min(end, firstSeenBy) }
        /// It was current at some moment from this one on.
        @inline(__always) var currentFrom: Int { max(start, lastSeenFrom) }
        var hasHappened: Bool { replaces || firstSeenBy != Int.max }

        @inline(__always) func isOlder(than other: Version) -> Bool {
            happenedBy < other.currentFrom && request != other.request
        }
    }

    let sizeBytes: UInt64
    let initialValue: (Int) -> UInt64
    /// By sector; empty where nothing was written.
    private var versions: [[Version]]
    /// The start of the latest flush that has been answered with success: what ended before is durable.
    private(set) var flushedStart = -1
    private(set) var now = 0
    /// Some of what reads may never be durable: a sync had failed, and the image was opened again.
    private(set) var hasLosses = false

    package init(sizeBytes: UInt64, initialValue: @escaping (Int) -> UInt64) {
        self.sizeBytes = sizeBytes
        self.initialValue = initialValue
        versions = Array(repeating: [], count: Int(sizeBytes / 512))
    }

    package mutating func advance() -> Int {
        now += 1
        return now
    }

    func isTouched(_ sector: Int) -> Bool { !versions[sector].isEmpty }

    private func initial(_ sector: Int) -> Version {
        Version(value: initialValue(sector), start: -2, end: -2, replaces: true, request: -1)
    }

    // MARK: - Events

    /// A write of `value` begins.
    package mutating func begin(_ sector: Int, value: UInt64, at time: Int, request: Int, forcesUnitAccess: Bool = false) {
        if versions[sector].isEmpty { versions[sector] = [initial(sector)] }
        versions[sector].append(
            Version(value: value, start: time, forcesUnitAccess: forcesUnitAccess, request: request))
    }

    /// - Parameter replaces: false for what need not have happened: a failed write, a discard.
    package mutating func end(_ sector: Int, request: Int, at time: Int, replaces: Bool) {
        for index in versions[sector].indices.reversed() where versions[sector][index].request == request {
            versions[sector][index].end = time
            versions[sector][index].replaces = replaces
            return
        }
    }

    /// The request has not begun after all, and never will.
    mutating func withdraw(_ sector: Int, request: Int) { versions[sector].removeAll { $0.request == request } }

    /// The disk has failed an operation, and `request` is under way.
    package mutating func metFault(_ sector: Int, request: Int) {
        for index in versions[sector].indices.reversed() where versions[sector][index].request == request {
            versions[sector][index].mayRepeat = true
            versions[sector][index].firstSeenBy = Int.max
            versions[sector][index].lastSeenFrom = Int.min
            return
        }
    }

    /// A read that began at `start` is answered now.
    /// - Returns: whether it may return `value`.
    package mutating func read(_ sector: Int, _ value: UInt64, start: Int) -> Bool {
        if versions[sector].isEmpty { return value == initialValue(sector) }
        var seen: Int?
        for index in versions[sector].indices where mayBeSeen(versions[sector][index], value, start, versions[sector]) {
            // Zeros of two writers, and who knows whose.
            if seen != nil { return true }
            seen = index
        }
        guard let seen else { return false }
        if !versions[sector][seen].mayRepeat {
            versions[sector][seen].firstSeenBy = min(versions[sector][seen].firstSeenBy, now)
            versions[sector][seen].lastSeenFrom = max(versions[sector][seen].lastSeenFrom, start)
        }
        return true
    }

    mutating func flushed(start: Int) { flushedStart = max(flushedStart, start) }

    /// The power was cut, and the sector reads as `value` since: that is durable now.
    mutating func settle(_ sector: Int, value: UInt64) {
        versions[sector] = [Version(value: value, start: now, end: now, replaces: true, request: -1)]
    }

    /// A sync had failed, the image was opened again, and the sector reads as `value` since. What is durable may be
    /// anything that might have survived, until something newer is.
    mutating func settleAfterFailedSync(_ sector: Int, value: UInt64) {
        hasLosses = true
        let others = Set(versions[sector].map(\.value)).filter { $0 != value && maySurvive(sector, $0) }
        versions[sector] = others.sorted().map {
            Version(value: $0, start: now - 1, end: now - 1, replaces: true, request: -2, mayBeLost: true)
        }
        versions[sector].append(
            Version(value: value, start: now, end: now, replaces: true, request: -1, mayBeLost: !others.isEmpty))
    }

    /// A sector is read for the first time since a process was killed and the image opened again with its log.
    /// - Parameter afterFailedSync: a sync of that process had failed, so acknowledged writes may be lost.
    /// - Returns: whether it may read so.
    mutating func readAfterKill(_ sector: Int, _ value: UInt64, start: Int, afterFailedSync: Bool) -> Bool {
        guard afterFailedSync else { return read(sector, value, start: start) }
        guard maySurvive(sector, value) else { return false }
        if isTouched(sector) { settleAfterFailedSync(sector, value: value) }
        return true
    }

    /// The process was killed: what was under way has happened by now, or never will.
    mutating func processKilled() {
        for sector in versions.indices {
            for index in versions[sector].indices where versions[sector][index].end == Int.max {
                versions[sector][index].end = now
            }
        }
    }

    /// Forgets what cannot be read any more; called when no request is under way.
    mutating func prune(_ sector: Int) {
        guard versions[sector].count > 4 else { return }
        let all = versions[sector]
        versions[sector] = all.filter { version in
            !all.contains { isDurable($0) && version.isOlder(than: $0) }
        }
    }

    // MARK: - Questions

    @inline(__always)
    private func isDurable(_ version: Version) -> Bool {
        version.replaces && !version.mayBeLost && (version.forcesUnitAccess || version.end < flushedStart)
    }

    /// Whether the sector may hold `value` after a power cut.
    @inline(__always)
    func maySurvive(_ sector: Int, _ value: UInt64) -> Bool {
        let all = versions[sector]
        if all.isEmpty { return value == initialValue(sector) }
        for version in all where version.value == value {
            var isReplaced = false
            for other in all where version.isOlder(than: other) && isDurable(other) { isReplaced = true }
            if !isReplaced { return true }
        }
        return false
    }

    /// Whether a read that began at `start`, and was seen by nobody else, may return `value` now.
    package func mayRead(_ sector: Int, _ value: UInt64, start: Int) -> Bool {
        let all = versions[sector]
        if all.isEmpty { return value == initialValue(sector) }
        return all.contains { mayBeSeen($0, value, start, all) }
    }

    /// Whether a read from `start` to now may have seen this version, which is one of `all`.
    @inline(__always)
    private func mayBeSeen(_ version: Version, _ value: UInt64, _ start: Int, _ all: [Version]) -> Bool {
        guard version.value == value else { return false }
        var seen = version
        seen.firstSeenBy = min(seen.firstSeenBy, now)
        seen.lastSeenFrom = max(seen.lastSeenFrom, start)
        for other in all where other.hasHappened {
            if seen.isOlder(than: other) && other.isOlder(than: seen) { return false }
        }
        return true
    }

    /// For people.
    package func explain(_ sector: Int) -> String {
        let all = versions[sector].isEmpty ? [initial(sector)] : versions[sector]
        let list = all.map { version in
            let value = version.value == 0 ? "0" : String(version.value, radix: 16)
            let end = version.end == Int.max ? "…" : "\(version.end)"
            let note = (version.forcesUnitAccess ? " fua" : "") + (version.replaces ? "" : " weak")
            let isSeen = version.lastSeenFrom != Int.min
            let seen = isSeen ? " seen from \(version.lastSeenFrom), by \(version.firstSeenBy)" : ""
            return "\(value) (\(version.start)…\(end)\(note)\(seen))"
        }
        return "written: " + list.joined(separator: ", ") + "; flushed up to \(flushedStart), now \(now)"
    }
}

/// The bytes of a sector with a value, and back.
package enum SectorValue {
    package static let mixed: UInt64 = .max

    package static func fill(_ buffer: UnsafeMutableRawPointer, _ value: UInt64) {
        let words = buffer.assumingMemoryBound(to: UInt64.self)
        for index in 0..<64 { words[index] = value }
    }

    /// - Returns: the sector's value, or `mixed` when it holds parts of several.
    @inline(__always)
    package static func read(_ buffer: UnsafeRawPointer) -> UInt64 {
        let words = buffer.assumingMemoryBound(to: UInt64.self)
        let value = words[0]
        var differences: UInt64 = 0
        for index in 1..<64 { differences |= words[index] ^ value }
        return differences == 0 ? value : mixed
    }
}
