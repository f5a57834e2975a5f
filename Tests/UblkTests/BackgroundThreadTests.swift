import Glibc
import Platform
import Synchronization
import Testing

@Suite struct BackgroundThreadTests {
    @Test("no signal of the process goes to such a thread, whatever the thread that makes it takes")
    func signals() throws {
        let before = blocked()
        let unblocked = Mutex<[Int32]>([])
        try BackgroundThread {
            var mask = sigset_t()
            pthread_sigmask(SIG_BLOCK, nil, &mask)
            for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1] where sigismember(&mask, signal) == 0 {
                unblocked.withLock { $0.append(signal) }
            }
        }.join()
        #expect(unblocked.withLock { $0 } == [])
        #expect(blocked() == before)
    }

    /// By this thread.
    private func blocked() -> [Bool] {
        var mask = sigset_t()
        pthread_sigmask(SIG_BLOCK, nil, &mask)
        return (1..<32).map { sigismember(&mask, $0) == 1 }
    }
}
