import Glibc

/// A thread that runs a body and ends.
public struct TestThread: @unchecked Sendable {
    // SAFETY: joined by one thread, once.
    private let thread: pthread_t

    public init(_ body: @escaping @Sendable () -> Void) {
        let box = Unmanaged.passRetained(Body(run: body))
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, box.toOpaque())
        precondition(result == 0, "no thread for a test")
        self.thread = thread
    }

    public func join() { pthread_join(thread, nil) }

    private final class Body {
        let run: @Sendable () -> Void

        init(run: @escaping @Sendable () -> Void) { self.run = run }
    }
}
