import CSupport
import Glibc
import IOURing
import SystemPackage
import Testing

@testable import Ublk

/// The channel on a real ring. /dev/null takes any io_uring command (since Linux 6.2) and answers 0.
struct RingControlChannelTests {
    private func channel() throws -> RingControlChannel {
        let descriptor = open("/dev/null", O_RDWR | O_CLOEXEC)
        try #require(descriptor >= 0)
        return try RingControlChannel(descriptor: descriptor)
    }

    private let stopCommand = ControlCommand(code: .stopDevice, deviceID: 1)

    @Test func commandsAreAnswered() throws {
        let channel = try channel()
        // More than the ring holds, so that entries are used again.
        for _ in 0..<100 {
            #expect(channel.execute(stopCommand, timeout: .seconds(60)) == .completed(0))
        }
    }

    @Test func aFileWithoutCommandsRefusesThem() throws {
        let file = try TemporaryFile()
        let channel = try RingControlChannel(descriptor: dup(file.descriptor))
        #expect(channel.execute(stopCommand, timeout: .seconds(60)) == .completed(-EOPNOTSUPP))
    }

    /// An operation that never ends by itself is given up at its deadline, and the channel serves on.
    @Test func unansweredOperationIsCancelled() throws {
        let channel = try channel()
        let event = cs_eventfd()
        try #require(event >= 0)
        defer { close(event) }
        let buffer = ControlBuffer(byteCount: 8)
        let outcome = channel.run(timeout: .milliseconds(20)) { sqe, token in
            cs_prep_read(sqe, event, buffer.bytes.baseAddress, 8, 0, token.rawValue)
        }
        #expect(outcome == .cancelled)
        #expect(channel.execute(stopCommand, timeout: .seconds(60)) == .completed(0))
    }

    /// One whose completion comes at the last moment is not lost.
    @Test func readyOperationCompletesEvenWithoutTime() throws {
        let channel = try channel()
        let outcome = channel.run(timeout: .zero) { sqe, token in cs_prep_nop(sqe, token.rawValue) }
        #expect(outcome == .completed(0))
    }
}

struct UblkCharacterDeviceTests {
    @Test func nodeThatNeverAppearsIsAnError() {
        let path = "/nonexistent/ublkc0"
        do throws(UblkOpenError) {
            _ = try UblkCharacterDevice.openPatiently(path: path, timeout: .milliseconds(30))
            Issue.record("opened")
        } catch {
            #expect(error == UblkOpenError(path: path, errno: .noSuchFileOrDirectory))
        }
    }

    @Test func hopelessErrorsAreNotRepeated() {
        do throws(UblkOpenError) {
            // Would not return for an hour if it were.
            _ = try UblkCharacterDevice.openPatiently(path: "/tmp", timeout: .seconds(3600))
            Issue.record("opened")
        } catch {
            #expect(error.errno == .isDirectory)
        }
    }

    @Test func nodeThatAppearsLateIsOpened() throws {
        let path = "/tmp/ublk-test-\(getpid())-\(UInt64.random(in: 0...(.max)))"
        let creator = ThreadWork {
            usleep(30_000)
            close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0o600))
        }
        defer { unlink(path) }
        creator.start()
        let descriptor = try UblkCharacterDevice.openPatiently(path: path, timeout: .seconds(60))
        #expect(descriptor >= 0)
        close(descriptor)
        creator.join()
    }
}

/// Work on a thread of its own.
final class ThreadWork {
    private let body: @Sendable () -> Void
    private var thread = pthread_t()

    init(_ body: @escaping @Sendable () -> Void) { self.body = body }

    func start() {
        let argument = Unmanaged.passRetained(self).toOpaque()
        pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<ThreadWork>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, argument)
    }

    func join() { pthread_join(thread, nil) }
}
