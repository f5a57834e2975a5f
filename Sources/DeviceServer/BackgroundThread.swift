import Glibc
import SystemPackage

/// A thread that runs a body and ends.
struct BackgroundThread {
    private let thread: pthread_t

    /// - Throws: the errno of `pthread_create`.
    init(_ body: @escaping () -> Void) throws(Errno) {
        // The thread holds the reference until its body has returned.
        let box = Unmanaged.passRetained(Body(body))
        var thread = pthread_t()
        let result = pthread_create(&thread, nil, { argument in
            guard let argument else { return nil }
            Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
            return nil
        }, box.toOpaque())
        guard result == 0 else {
            box.release()
            throw Errno(rawValue: result)
        }
        self.thread = thread
    }

    /// Waits for its end. Once, unless it is detached.
    func join() { pthread_join(thread, nil) }

    /// Nobody will wait for its end.
    func detach() { pthread_detach(thread) }

    private final class Body {
        let run: () -> Void

        init(_ run: @escaping () -> Void) { self.run = run }
    }
}
