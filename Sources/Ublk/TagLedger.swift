/// Whose each tag of a queue is, and whether the requests that arrive are started: the state of a queue's loop, without its
/// I/O.
///
/// A tag goes from the driver to the target and back, until it retires. While the queue is *held* the requests that arrive
/// are kept, in order, and started when it is resumed; once it *leaves* they are left alone, for the next server. Whoever
/// holds the queue may rely on it: it neither leaves nor ends before it is resumed.
package struct TagLedger {
    package enum Owner: UInt8 {
        case driver
        case target
        /// Arrived while the queue was held.
        case kept
        /// Arrived while the queue was leaving: the next server's.
        case left
        case retired
    }

    package enum Admission {
        case starting
        case holding
        case leaving
    }

    package private(set) var admission = Admission.starting
    /// Requests that the target has.
    private(set) var underWay = 0
    private var owners: [Owner]
    private var kept: [Int] = []
    private var retiredCount = 0
    private var holders = 0
    private var leavesWhenResumed = false

    package init(depth: Int) { owners = Array(repeating: .driver, count: depth) }

    var depth: Int { owners.count }

    package func owner(of tag: Int) -> Owner { owners[tag] }

    // MARK: Requests

    /// A request has arrived.
    /// - Returns: whether to start it.
    @inline(__always)
    package mutating func arrive(_ tag: Int) -> Bool {
        precondition(owners[tag] == .driver, "a request arrives for a tag that the driver does not have")
        guard admission == .starting else {
            setAside(tag)
            return false
        }
        owners[tag] = .target
        underWay &+= 1
        return true
    }

    private mutating func setAside(_ tag: Int) {
        if admission == .holding {
            owners[tag] = .kept
            kept.append(tag)
        } else {
            owners[tag] = .left
        }
    }

    /// The target has finished a request, whose result goes to the driver.
    @inline(__always)
    package mutating func finish(_ tag: Int) {
        precondition(owners[tag] == .target, "a result for a request that the target does not have")
        owners[tag] = .driver
        underWay &-= 1
    }

    /// The target gives a request up that it has not answered, while the queue leaves: it is the next server's.
    package mutating func giveUp(_ tag: Int) {
        precondition(owners[tag] == .target, "a request is given up that the target does not have")
        precondition(isLeaving, "a request is given up, and nobody comes to answer it")
        owners[tag] = .left
        underWay &-= 1
    }

    /// The driver will not use a tag again.
    mutating func retire(_ tag: Int) {
        precondition(owners[tag] == .driver, "the driver gives up a tag that it does not have")
        owners[tag] = .retired
        retiredCount += 1
    }

    // MARK: Holding and leaving

    /// Requests that arrive from now on wait for `resume`. Several may hold the queue; each resumes it.
    package mutating func hold() {
        precondition(admission != .leaving, "nobody can rely on a queue that is leaving")
        holders += 1
        admission = .holding
    }

    /// - Returns: the requests to start now, in the order in which they arrived.
    package mutating func resume() -> [Int] {
        precondition(holders > 0 && admission == .holding, "resumed, but not held")
        holders -= 1
        guard holders == 0 else { return [] }
        defer { kept = [] }
        admission = leavesWhenResumed ? .leaving : .starting
        for tag in kept { owners[tag] = leavesWhenResumed ? .left : .target }
        if leavesWhenResumed { return [] }
        underWay += kept.count
        return kept
    }

    /// No request is started from now on, or from when nobody holds the queue any more.
    package mutating func leave() {
        if admission == .holding { leavesWhenResumed = true } else { admission = .leaving }
    }

    /// Whether that is so, or will be.
    package var isLeaving: Bool { admission == .leaving || leavesWhenResumed }

    /// Held, with no request under way.
    package var isQuiet: Bool { admission == .holding && underWay == 0 }

    /// There is nothing to wait for any more.
    var hasEnded: Bool {
        guard underWay == 0, admission != .holding else { return false }
        return admission == .leaving || retiredCount == owners.count
    }

    /// It has ended, and the driver waits for another server.
    var hasLeft: Bool { hasEnded && retiredCount < owners.count }
}
