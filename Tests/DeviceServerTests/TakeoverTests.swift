import BlockStorage
import Glibc
import Platform
import TestSupport
import Testing
import Ublk

@testable import DeviceServer

@Suite struct TakeoverTests {
    private let directory: TemporaryDirectory
    private let registry: DeviceRegistry

    init() throws {
        directory = try TemporaryDirectory()
        registry = DeviceRegistry(directory: directory.path)
    }

    private func record(server: Int32, left: ImageMark? = nil) -> DeviceRecord {
        DeviceRecord(
            deviceID: 0, server: ProcessIdentity(id: server, startTicks: 1), imagePath: "/image",
            image: FileIdentity(high: 1, low: 2), deviceNonce: 1, isReadOnly: false, startedAt: 0, leftImage: left)
    }

    private let before616 = UblkFeatures([])
    private let mark = ImageMark(sizeBytes: 1, writtenAt: 2)

    @Test("from before the image is changed the record is the new server's, and does not say how the last one left the image")
    func opened() throws {
        try registry.record(record(server: 1, left: mark))
        for driver in [before616, .perIODaemon] {
            let takeover = try Takeover(of: 0, registry, driver: driver, serverProcess: 1)
            #expect(registry.record(of: 0)?.leftImage == mark)
            try takeover.open(record(server: 2))
            // Killed here, or after the next line on a driver that can take that.
            #expect(registry.record(of: 0) == record(server: 2))
            try takeover.begin()
            var expected = record(server: 2)
            expected.isBeingTakenOver = driver == before616
            #expect(registry.record(of: 0) == expected)
            #expect(takeover.end() == record(server: 2))
            #expect(registry.record(of: 0) == record(server: 2))
            try registry.record(record(server: 1, left: mark))
        }
    }

    @Test("the end of a takeover needs no space: what it says was written before the beginning")
    func fullDirectory() throws {
        let takeover = try Takeover(of: 0, registry, driver: before616, serverProcess: 1)
        try takeover.open(record(server: 2))
        try takeover.begin()
        #expect(directory.names == [".ublk0.json.\(getpid())", "ublk0.json"])
        _ = takeover.end()
        #expect(registry.record(of: 0) == record(server: 2))
        #expect(directory.names == ["ublk0.json"])
    }

    @Test("a takeover that fails leaves how it has closed the image, and on an old driver that it was cut short")
    func givenUp() throws {
        for driver in [before616, .perIODaemon] {
            let takeover = try Takeover(of: 0, registry, driver: driver, serverProcess: 1)
            try takeover.open(record(server: 2))
            try takeover.begin()
            takeover.giveUp(leaving: mark)
            let left = try #require(registry.record(of: 0))
            #expect(left.leftImage == mark && left.isBeingTakenOver == (driver == before616))
            #expect(directory.names == ["ublk0.json"])
            if driver == before616 {
                #expect(throws: ServerError.self) { try Takeover(of: 0, registry, driver: driver, serverProcess: 1) }
                // Killed after END_USER_RECOVERY, before the record said so: nothing was cut short.
                _ = try Takeover(of: 0, registry, driver: driver, serverProcess: 2)
            }
            try registry.remove(0)
        }
        // The driver has refused the first command, or it was never given: nothing was cut short.
        for isRefused in [true, false] {
            let takeover = try Takeover(of: 0, registry, driver: before616, serverProcess: 1)
            try takeover.open(record(server: 2))
            if isRefused {
                try takeover.begin()
                takeover.refused()
            }
            takeover.giveUp(leaving: mark)
            #expect(registry.record(of: 0) == record(server: 2, left: mark))
        }
        // Refused before it changed anything.
        try Takeover(of: 0, registry, driver: before616, serverProcess: 1).giveUp(leaving: nil)
        #expect(registry.record(of: 0) == record(server: 2, left: mark))
    }
}

@Suite struct DeviceLockTests {
    @Test("one at a time, and no device is no lock")
    func exclusion() throws {
        let directory = try TemporaryDirectory()
        let first = try DeviceLock(path: directory.path, id: 3, timeoutSeconds: 0)
        #expect(throws: DeviceLockError(id: 3)) { try DeviceLock(path: directory.path, id: 3, timeoutSeconds: 0) }
        first.release()
        // A program that another test is about to start has the descriptor for a moment, and the lock with it.
        let second = try DeviceLock(path: directory.path, id: 3, timeoutSeconds: 60)
        second.release()
        _ = try DeviceLock(path: directory.path("gone"), id: 3, timeoutSeconds: 0)
        _ = try DeviceLock(path: directory.path("gone"), id: 3, timeoutSeconds: 0)
    }
}

@Suite struct StopAttemptTests {
    private func outcome(_ stop: @escaping () throws(ServerError) -> DiskUse?) throws -> StopAttempt.Outcome? {
        let attempt = try #require(StopAttempt(request: nil, stop))
        var polled = pollfd(fd: attempt.finished, events: Int16(POLLIN), revents: 0)
        #expect(poll(&polled, 1, 60_000) == 1)
        return attempt.takeOutcome()
    }

    /// Taken for a success it would have the server wait for queues that go on.
    @Test("an attempt that the driver refuses, or does not answer, is not a success")
    func failure() throws {
        guard case .failed(.notRecoverable(id: 3)) = try outcome({ () throws(ServerError) in throw .notRecoverable(id: 3) })
        else {
            Issue.record("not failed")
            return
        }
        guard case .stopped = try outcome({ () throws(ServerError) in nil }) else {
            Issue.record("not stopped")
            return
        }
        let use = DiskUse(path: "/dev/ublkb0", user: .processes([]))
        guard case .used = try outcome({ () throws(ServerError) in use }) else {
            Issue.record("not used")
            return
        }
    }
}
