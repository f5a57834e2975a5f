import Glibc

/// A thread that runs one function.
package struct TestThread {
    private let thread: pthread_t

    package init(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(Body(run: body)).toOpaque())
        precondition(result == 0, "no thread: errno \(result)")
        self.thread = thread
    }

    /// Waits for its end. Once, or `detach`.
    package func join() { pthread_join(thread, nil) }

    package func detach() { pthread_detach(thread) }

    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(run: @escaping @Sendable () -> Void) { self.run = run }
    }
}
