/// What is to become of a server's disk that somebody wants gone and somebody else uses: what the next attempt is, and when.
///
/// A value of the server's main thread. One attempt is under way at a time (`StopAttempt`).
struct DiskStopping {
    /// An attempt to take the disk away.
    struct Attempt: Equatable {
        /// Even though it is in use.
        var force = false
        var timeoutSeconds = ControlRequest.defaultStopTimeoutSeconds
        var afterMilliseconds: UInt32 = 0
        var isOfSignal = false
        /// Who asks for it; nil: nobody is to be answered.
        var request: ControlSocketServer.ConnectionID?
        /// A disk in use goes when that has ended.
        var isLazy = false
    }

    /// How often a disk in use is looked at: a look holds it exclusively for a moment.
    static let lazyMilliseconds: UInt32 = 1000
    static let machineMilliseconds: UInt32 = 100
    static let failureMilliseconds: UInt32 = 10_000

    /// It goes when its last user has gone.
    private(set) var isLazy: Bool
    /// The machine is going down, and takes the users with it.
    private(set) var awaitsMachine = false
    private var forcesNextSignal = false
    private var hasSignal = false
    private var asked: Attempt?

    init(isLazy: Bool) { self.isLazy = isLazy }

    /// Whether there is another attempt after one that found the disk in use.
    var isDraining: Bool { isLazy || awaitsMachine }

    mutating func becomeLazy() { isLazy = true }
    mutating func awaitMachine() { awaitsMachine = true }
    /// The next signal ends a disk that cannot wait for another server.
    mutating func forceNextSignal() { forcesNextSignal = true }
    mutating func noteSignal() { hasSignal = true }

    /// Somebody asks for an attempt while one is under way for nobody.
    /// - Returns: false where somebody else has.
    mutating func noteRequest(_ attempt: Attempt) -> Bool {
        precondition(attempt.request != nil, "an attempt that nobody asks for")
        guard asked == nil else { return false }
        asked = attempt
        return true
    }

    /// The next attempt: a signal's, or what was asked for, or another look.
    /// - Parameter afterFailure: the last one could not tell.
    mutating func next(afterFailure: Bool = false) -> Attempt {
        if hasSignal {
            hasSignal = false
            return Attempt(force: forcesNextSignal, isOfSignal: true)
        }
        if let attempt = asked.take() { return attempt }
        precondition(isDraining, "an attempt that nobody wants")
        let pause =
            afterFailure
            ? DiskStopping.failureMilliseconds
            : awaitsMachine ? DiskStopping.machineMilliseconds : DiskStopping.lazyMilliseconds
        return Attempt(afterMilliseconds: pause)
    }
}
