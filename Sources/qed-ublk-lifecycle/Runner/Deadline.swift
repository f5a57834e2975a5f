import CSupport
import Glibc
import Platform
import Synchronization

/// Work on a thread of its own, which may hang in the kernel without the test hanging with it.
final class Work<Value: Sendable>: @unchecked Sendable {
    // SAFETY: `value` and `body` are the thread's until `isDone` says that it has been set.
    private var value: Value?
    private let isDone = Atomic<Bool>(false)
    /// Gone with its end, and so is what it holds: a device that it has open is in use.
    private var body: (@Sendable () -> Value)?

    init(_ body: @escaping @Sendable () -> Value) {
        self.body = body
        do { try BackgroundThread { self.run() }.detach() } catch { preconditionFailure("no thread: \(error)") }
    }

    private func run() {
        value = body?()
        body = nil
        isDone.store(true, ordering: .releasing)
    }

    /// What came of it; nil where it has not ended when the time is over.
    func result(seconds: Double) -> Value? {
        let end = ContinuousClock.now + .seconds(seconds)
        while !isDone.load(ordering: .acquiring) {
            guard ContinuousClock.now < end else { return nil }
            cs_sleep_milliseconds(1)
        }
        return value
    }
}

/// How long anything may take, in an emulated machine beside others.
enum Deadline {
    static let seconds = 60.0

    /// - Throws: `Breach` where it has not ended within the time.
    static func run<Value: Sendable>(_ what: String, _ body: @escaping @Sendable () -> Value) throws(Breach) -> Value {
        guard let value = Work(body).result(seconds: seconds) else {
            throw Breach("\(what) has not ended within \(Int(seconds)) seconds")
        }
        return value
    }
}
