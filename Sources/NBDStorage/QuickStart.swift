/// The beginning of an export whose first byte is to be there soon. A value, so that it can be tested by itself.
///
/// What NBD negotiates costs a round trip for each question. So the first connection is plain: it asks for the export and for
/// nothing else, and takes reads. A full one, which tells where holes are, is made beside it as soon as it has given something,
/// and then the plain one goes. A server that takes one connection at a time gets the full one in the place of the plain one;
/// where it takes no full one either, the plain one comes back, and stays.
struct QuickStart: Equatable {
    enum Step: Equatable {
        /// The next connection is plain.
        case begins
        /// A plain one is there; at this time a full one is made, unless there is an answer before.
        case plain(dueAt: UInt64)
        /// A full one is being made beside it.
        case beside
        /// The plain one goes, and a full one is made in its place; so many attempts are left.
        case instead(attempts: Int)
        /// The next connection is plain, since the server takes no full one.
        case returns
        /// No full one is tried as long as this plain one lasts.
        case plainOnly
        /// All connections are full ones.
        case over
    }

    private(set) var step: Step

    /// Whoever has read nothing so long after the beginning may be about to write. Nanoseconds.
    static let longestDelay: UInt64 = 1_000_000_000
    /// A server that says nothing for so long may have others wait until the first connection ends. Nanoseconds.
    static let longestSilence: UInt64 = 2_000_000_000
    /// Until a server has noticed that the plain connection is gone it may refuse others.
    static let attemptsInstead = 3

    /// - Parameter isQuick: otherwise all connections are full from the beginning.
    init(isQuick: Bool) { step = isQuick ? .begins : .over }

    /// Of the next connection where there is none.
    var nextIsPlain: Bool { step == .begins || step == .returns }

    /// When a full connection is to be made beside the plain one; nil: not now.
    var dueAt: UInt64? {
        if case .plain(let dueAt) = step { dueAt } else { nil }
    }

    /// Whether there is no connection because the plain one has made room, and not because the server is away.
    var makesRoom: Bool {
        switch step {
        case .instead, .returns: true
        case .begins, .plain, .beside, .plainOnly, .over: false
        }
    }

    /// How long a full connection that is not ready may say nothing.
    func patience(_ usual: UInt64, takesSeveralConnections: Bool) -> UInt64 {
        switch step {
        case .beside where !takesSeveralConnections, .instead: min(usual, QuickStart.longestSilence)
        default: usual
        }
    }

    mutating func plainIsReady(now: UInt64) {
        step = step == .returns ? .plainOnly : .plain(dueAt: now &+ QuickStart.longestDelay)
    }

    /// The plain one has answered.
    mutating func answered(now: UInt64) {
        if case .plain = step { step = .plain(dueAt: now) }
    }

    mutating func fullBegins() {
        if case .plain = step { step = .beside }
    }

    mutating func fullIsReady() { step = .over }

    /// A connection was lost, or could not be made.
    /// - Parameter plainIsThere: still.
    mutating func lost(isPlain: Bool, plainIsThere: Bool) {
        switch step {
        case .beside where !isPlain: step = plainIsThere ? .instead(attempts: QuickStart.attemptsInstead) : .begins
        case .instead(let attempts) where !isPlain: step = attempts > 1 ? .instead(attempts: attempts - 1) : .returns
        case .plain where isPlain, .plainOnly where isPlain, .returns where isPlain: step = .begins
        // A full one is on its way, or the next one is plain anyway.
        case .begins, .plain, .beside, .instead, .returns, .plainOnly, .over: break
        }
    }
}
