import BlockStorage
import CSupport
import Logging
import Platform
import QEDChain
import QEDEngine
import Ublk

/// A device that serves, as what changes its files meanwhile needs it. Used by threads of their own.
struct LiveDevice: Sendable {
    let session: ImageSession
    let queues: DeviceQueues<EngineTarget<FileStorage>>
    /// The device's, as it was when it began to be served.
    let record: DeviceRecord
    let cacheBytes: Int
    let keepsReads: Bool
    /// How much that may take, about, in all files together.
    let keepLimitBytes: UInt64?
    /// Told of what the disk's users read from the bottom of the chain.
    let recorder: ReadRecorder?
    /// For the files that an image may name.
    let policy: BackingPolicy
    let registry: DeviceRegistry
    let rights: any DeviceRights
    let log: Logger
    /// Of one of the two files in which that is.
    var keptLimitBytes: UInt64? { keepLimitBytes.map { $0 / 2 } }
    private let oneAtATime = Lock(())
    /// Held by who makes room for what is kept, from the first of its changes to the last (`KeptRoom`).
    let makesRoom = Lock(())
    private let unfinished = Lock<ChainReplacement?>(nil)

    /// How long the requests that are under way may take before the queues go on, and nothing was changed.
    static let quietTimeout = Duration.seconds(10)
    private static let attempts = 10
    /// The same, where there were none a moment ago, and nobody has to wait for it.
    static let idleTimeout = Duration.milliseconds(2)

    /// Nobody else changes the device's files meanwhile. Waits for who does.
    func changing<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
        try oneAtATime.withLock { (_: inout Void) throws(Failure) in try body() }
    }

    /// Changes the device's record.
    func note(_ change: (inout DeviceRecord) -> Void) throws(RegistryError) {
        try registry.change(session.updated(record), change)
    }

    /// The same, also where the server has no right to.
    func note(_ note: DeviceNote) throws(ServerError) { try rights.note(note, own: session.updated(record)) }

    /// Asks all queues, while they are quiet: their threads do nothing else, and answer at once. One that does not has ended,
    /// which it cannot while it is held.
    func askAll(_ body: @escaping @Sendable (EngineTarget<FileStorage>) -> Void) {
        let answers = queues.mailboxes.map { mailbox in mailbox.ask { target, _ in body(target) } }
        for answer in answers {
            guard case .done? = answer.wait(timeout: .seconds(1_000_000)) else {
                preconditionFailure("a queue that is held has ended")
            }
        }
    }

    /// Runs `body` while all queues are quiet. Again where somebody else holds the queues at the moment, or a request takes long.
    func whileQuiet(_ body: () -> Void) throws(QueueSilence) {
        for attempt in 1...Self.attempts {
            do throws(QueueSilence) { return try queues.whileQuiet(timeout: Self.quietTimeout, body) } catch {
                if attempt == Self.attempts { throw error }
                cs_sleep_milliseconds(100)
            }
        }
    }

    /// Whether nothing is under way at the moment.
    var isIdle: Bool {
        let answers = try? queues.ask(timeout: .seconds(1)) { target, _ in target.isIdle }
        return answers?.allSatisfy { $0 } ?? false
    }

    /// Runs something that no guest has asked for on the first queue, beside its requests.
    /// - Returns: what it gave; nil where the queue does not answer, or has not done with the last of these.
    func onFirstQueue<Value: Sendable>(
        _ body: @escaping @Sendable (EngineQueue<FileStorage>) async -> Value
    ) -> Value? {
        let ended = Answer<Value>()
        let begun = queues.mailboxes[0].ask { target, _ in target.beginOwnWork { ended.give(await body($0)) } }
        guard case .done(true)? = begun.waitOrWithdraw(timeout: .seconds(60)) else { return nil }
        return ended.wait(timeout: .seconds(1_000_000))
    }

    /// Changes the image's header on the first queue, and what goes with it.
    /// - Throws: why it was not done.
    func onFirstQueue(
        changing change: @escaping @Sendable (EngineQueue<FileStorage>) async throws(HeaderChangeError) -> Void
    ) throws(OwnWorkError) {
        let outcome = onFirstQueue { queue -> HeaderChangeError? in
            do throws(HeaderChangeError) {
                try await change(queue)
                return nil
            } catch {
                return error
            }
        }
        guard let outcome else { throw .noAnswer }
        if let error = outcome { throw .header(error) }
    }

    /// The chain is another from now on, as a header says already.
    /// - Parameter replacement: where the queues are never quiet it is left for whoever changes something next (`settle`): nobody
    ///   may before.
    func replaceChainWhenQuiet(_ replacement: ChainReplacement) throws(QueueSilence) {
        unfinished.withLock { $0 = replacement }
        try settle()
    }

    /// Sees to it that the queues have the chain that the headers say.
    func settle() throws(QueueSilence) {
        guard let replacement = unfinished.withLock({ $0 }) else { return }
        try whileQuiet { replaceChain(replacement.next, replacement.files) }
        unfinished.withLock { $0 = nil }
        replacement.whenDone()
    }

    /// The chain is another from now on. While all queues are quiet.
    func replaceChain(_ next: NextChain, _ files: [LayerFile]) {
        let image = session.image
        image.replaceChain(next)
        askAll { $0.replaceEngine(of: image, chain: files) }
        session.top.withLock { $0.chain = files }
    }
}

/// A chain that the queues are to get, and what comes after that.
struct ChainReplacement: Sendable {
    let next: NextChain
    let files: [LayerFile]
    let whenDone: @Sendable () -> Void
}

/// Why a queue did not do what it was asked for beside its requests.
enum OwnWorkError: Error {
    case noAnswer
    case header(HeaderChangeError)
}
