import CSupport
import Glibc
import Platform
import Synchronization

/// What is known of an export's coming and going: its thread tells, everybody asks, and whoever opens it waits for the beginning.
final class ExportWatch: @unchecked Sendable {
    // SAFETY: locked; the descriptor is used by one who waits and one who signals, and closed with the last reference.
    private struct State {
        /// Nil: nothing was heard, and it is waited for.
        var first: ExportCondition?
        var tell: (@Sendable (NBDExport.Change) -> Void)?
        var last: NBDExport.Change?
        var absence: NBDExport.Absence?
    }
    private let state = Lock(State())
    private let descriptor = cs_eventfd()
    /// Asked for each write: without the lock.
    private let answersExtents = Atomic<Bool>(false)

    deinit { cs_close(descriptor) }

    /// Whether the server tells where holes are; false as long as it has never answered.
    var tellsExtents: Bool { answersExtents.load(ordering: .acquiring) }

    var absence: NBDExport.Absence? { state.withLock { $0.absence } }

    /// On the export's thread.
    func tell(_ condition: ExportCondition) { tell(condition, unlessHeard: false) }

    /// - Parameter unlessHeard: says nothing where anything was heard before.
    private func tell(_ condition: ExportCondition, unlessHeard: Bool) {
        switch condition {
        case .opened(let shape): if shape.tellsExtents { answersExtents.store(true, ordering: .releasing) }
        case .tellsExtents: return answersExtents.store(true, ordering: .releasing)
        case .failed, .away, .back, .another: break
        }
        let told = state.withLock { state -> (change: NBDExport.Change, (@Sendable (NBDExport.Change) -> Void)?)? in
            let isFirst = state.first == nil
            guard isFirst || !unlessHeard else { return nil }
            if isFirst { state.first = condition }
            guard let change = change(condition, isFirst: isFirst) else { return nil }
            // Its opener had waited long enough before the first attempt failed.
            if case .away = change, case .away? = state.last { return nil }
            note(change, in: &state)
            return (change, state.tell)
        }
        cs_eventfd_signal(descriptor)
        if let told { told.1?(told.change) }
    }

    /// - Returns: nil for what is told by the way in which it opens.
    private func change(_ condition: ExportCondition, isFirst: Bool) -> NBDExport.Change? {
        switch condition {
        case .opened: isFirst ? nil : .back
        case .failed, .tellsExtents: nil
        case .away(let failure): .away(failure)
        case .back: .back
        case .another(let sizeBytes): .another(sizeBytes: sizeBytes)
        }
    }

    private func note(_ change: NBDExport.Change, in state: inout State) {
        state.last = change
        state.absence =
            switch change {
            case .back: nil
            case .away(let failure): NBDExport.Absence(since: Int64(time(nil)), reason: "\(failure)", isAnother: false)
            case .another(let sizeBytes):
                NBDExport.Absence(since: Int64(time(nil)), reason: "it has \(sizeBytes) bytes now", isAnother: true)
            }
    }

    /// Waits for the first that is heard of it; with a known size not for long, and then it is away.
    /// - Returns: the size that it is opened with.
    func findSize(known knownBytes: UInt64?, patienceNanoseconds: UInt64) throws(NBDFailure) -> UInt64 {
        let deadline = Deadline(after: .nanoseconds(Int64(clamping: patienceNanoseconds)))
        while true {
            switch state.withLock({ $0.first }) {
            case .opened(let shape): return shape.sizeBytes
            case .failed(let failure): throw failure
            case .another(let sizeBytes): return sizeBytes
            case .away, .back, .tellsExtents:
                guard let knownBytes else { preconditionFailure("away, and never opened") }
                return knownBytes
            case nil: break
            }
            guard knownBytes != nil else {
                cs_eventfd_wait(descriptor)
                continue
            }
            if deadline.hasPassed {
                let seconds = patienceNanoseconds / 1_000_000_000
                tell(.away(NBDFailure("the server has not answered for \(seconds) seconds")), unlessHeard: true)
                continue
            }
            var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            poll(&polled, 1, Int32(clamping: deadline.remaining.milliseconds + 1))
        }
    }

    /// - Parameter tell: is told at once of what was told last.
    func setTeller(_ tell: @escaping @Sendable (NBDExport.Change) -> Void) {
        let last = state.withLock { state in
            state.tell = tell
            return state.last
        }
        if let last { tell(last) }
    }
}

/// What has become of an export.
enum ExportCondition: Sendable {
    /// The first connection is there, of an export whose size was known perhaps after it was away.
    case opened(ExportShape)
    /// It was opened without that, and now a connection tells where holes are.
    case tellsExtents
    /// There will be none.
    case failed(NBDFailure)
    case away(NBDFailure)
    case back
    /// Under the same name there is another one now.
    case another(sizeBytes: UInt64)
}
