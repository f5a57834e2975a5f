import CSupport
import Glibc
import SystemPackage

/// A thread that runs a body and ends. It gets no signal: those of the process are for its main thread, which may begin to wait
/// for them (`signalfd`) later than this one begins; SIGTERM here would end the process where it stands.
package struct BackgroundThread: @unchecked Sendable {
    // SAFETY: a number; it is joined or detached once, by whoever was given that.
    private let thread: pthread_t

    /// Enough for what threads do here, and too small for a huge page: of the usual 8 MiB the kernel would at once give 2 to a
    /// thread that needs some KiB.
    private static let stackSizeBytes = 1 << 20

    /// - Throws: the errno of `pthread_create`.
    package init(_ body: @escaping () -> Void) throws(Errno) {
        // The thread holds the reference until its body has returned.
        let box = Unmanaged.passRetained(Body(body))
        var thread = pthread_t()
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setstacksize(&attributes, BackgroundThread.stackSizeBytes)
        var (all, before) = (sigset_t(), sigset_t())
        sigfillset(&all)
        pthread_sigmask(SIG_BLOCK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        let result = pthread_create(
            &thread, &attributes,
            { argument in
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
    package func join() { pthread_join(thread, nil) }

    /// Nobody will wait for its end.
    package func detach() { pthread_detach(thread) }

    private final class Body {
        let run: () -> Void

        init(_ run: @escaping () -> Void) { self.run = run }
    }
}
