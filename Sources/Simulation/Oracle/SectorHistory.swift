/// What each sector of the device may read as: the model that the engine is compared with.
///
/// A value is a 64-bit number; a sector that holds it holds it 64 times. 0 is a sector of zeros; every write gives every
/// sector a value of its own. A value may be read as long as no other write to the sector has begun after it ended and
/// ended before the read began; it may survive a power cut as long as no such write is durable. Times are counted in events.
struct SectorHistory {
    struct Version {
        var value: UInt64
        var start: Int
        /// When the request was answered, or `Int.max`.
        var end = Int.max
        /// The request succeeded: what it wrote takes the place of what was before.
        var replaces = false
        var forcesUnitAccess = false
        var request: Int
    }

    let sizeBytes: UInt64
    let initialValue: (Int) -> UInt64
    /// By sector; empty where nothing was written.
    private var versions: [[Version]]
    /// The start of the latest flush that has been answered with success: what ended before is durable.
    private(set) var flushedStart = -1
    private(set) var now = 0

    init(sizeBytes: UInt64, initialValue: @escaping (Int) -> UInt64) {
        self.sizeBytes = sizeBytes
        self.initialValue = initialValue
        versions = Array(repeating: [], count: Int(sizeBytes / 512))
    }

    mutating func advance() -> Int {
        now += 1
        return now
    }

    func isTouched(_ sector: Int) -> Bool { !versions[sector].isEmpty }

    private func initial(_ sector: Int) -> Version {
        Version(value: initialValue(sector), start: -2, end: -2, replaces: true, request: -1)
    }

    // MARK: - Events

    /// A write of `value` begins.
    mutating func begin(_ sector: Int, value: UInt64, at time: Int, request: Int, forcesUnitAccess: Bool) {
        if versions[sector].isEmpty { versions[sector] = [initial(sector)] }
        versions[sector].append(
            Version(value: value, start: time, forcesUnitAccess: forcesUnitAccess, request: request))
    }

    /// - Parameter replaces: false for what need not have happened: a failed write, a discard.
    mutating func end(_ sector: Int, request: Int, at time: Int, replaces: Bool) {
        for index in versions[sector].indices.reversed() where versions[sector][index].request == request {
            versions[sector][index].end = time
            versions[sector][index].replaces = replaces
            return
        }
    }

    mutating func flushed(start: Int) { flushedStart = max(flushedStart, start) }

    /// The power was cut, and the sector reads as `value` since: that is durable now.
    mutating func settle(_ sector: Int, value: UInt64) {
        versions[sector] = [Version(value: value, start: now, end: now, replaces: true, request: -1)]
    }

    /// Forgets what cannot be read any more; called when no request is under way.
    mutating func prune(_ sector: Int) {
        guard versions[sector].count > 4 else { return }
        let all = versions[sector]
        versions[sector] = all.filter { version in
            !all.contains { isDurable($0) && version.end < $0.start }
        }
    }

    // MARK: - Questions

    @inline(__always)
    private func isDurable(_ version: Version) -> Bool {
        version.replaces && (version.forcesUnitAccess || version.end < flushedStart)
    }

    /// Whether the sector may hold `value` after a power cut.
    @inline(__always)
    func maySurvive(_ sector: Int, _ value: UInt64) -> Bool {
        let all = versions[sector]
        if all.isEmpty { return value == initialValue(sector) }
        for version in all where version.value == value {
            var isReplaced = false
            for other in all where version.end < other.start && isDurable(other) { isReplaced = true }
            if !isReplaced { return true }
        }
        return false
    }

    /// Whether a read that began at `start` may return `value` now.
    func mayRead(_ sector: Int, _ value: UInt64, start: Int) -> Bool {
        let all = versions[sector]
        if all.isEmpty { return value == initialValue(sector) }
        return all.contains { version in
            version.value == value
                && !all.contains { version.end < $0.start && $0.replaces && $0.end < start }
        }
    }

    /// For people.
    func explain(_ sector: Int) -> String {
        let all = versions[sector].isEmpty ? [initial(sector)] : versions[sector]
        let list = all.map { version in
            let value = version.value == 0 ? "0" : String(version.value, radix: 16)
            let end = version.end == Int.max ? "…" : "\(version.end)"
            let note = (version.forcesUnitAccess ? " fua" : "") + (version.replaces ? "" : " weak")
            return "\(value) (\(version.start)…\(end)\(note))"
        }
        return "written: " + list.joined(separator: ", ") + "; flushed up to \(flushedStart), now \(now)"
    }
}

/// The bytes of a sector with a value, and back.
enum SectorValue {
    static let mixed: UInt64 = .max

    static func fill(_ buffer: UnsafeMutableRawPointer, _ value: UInt64) {
        let words = buffer.assumingMemoryBound(to: UInt64.self)
        for index in 0..<64 { words[index] = value }
    }

    /// - Returns: the sector's value, or `mixed` when it holds parts of several.
    @inline(__always)
    static func read(_ buffer: UnsafeRawPointer) -> UInt64 {
        let words = buffer.assumingMemoryBound(to: UInt64.self)
        let value = words[0]
        var differences: UInt64 = 0
        for index in 1..<64 { differences |= words[index] ^ value }
        return differences == 0 ? value : mixed
    }
}
