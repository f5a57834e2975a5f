import BlockStorage
import CSupport
import Foundation
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

@testable import DeviceServer
@testable import Ublk

/// `del`, with the kernel's part played by the test. No disk is there: what uses one is for the scenarios.
@Suite struct DeviceRemovalTests {
    private let directory: TemporaryDirectory
    private let registry: DeviceRegistry
    /// No machine has as many.
    private static let id: UInt32 = 900_007

    init() throws {
        directory = try TemporaryDirectory()
        registry = DeviceRegistry(directory: directory.path)
    }

    /// A driver that has one device, or none.
    private final class Driver: ControlChannel {
        private var device: cs_ublk_device_info?
        private(set) var codes: [UblkCommand] = []

        init(nonce: UInt64?, state: UInt16 = CS_UBLK_S_DEV_DEAD) {
            guard let nonce else { return }
            var info = cs_ublk_device_info()
            info.dev_id = DeviceRemovalTests.id
            info.state = state
            info.ublksrv_flags = nonce
            device = info
        }

        func execute(_ command: ControlCommand, timeout: Duration) -> ControlOutcome {
            codes.append(command.code)
            guard let info = device else { return .completed(-ENODEV) }
            switch command.code {
            case .getDeviceInfo: command.buffer?.bytes.storeBytes(of: info, as: cs_ublk_device_info.self)
            case .deleteDevice, .deleteDeviceAsync: device = nil
            default: return .completed(-EINVAL)
            }
            return .completed(0)
        }
    }

    private func makeRecord(server: ProcessIdentity?, isReadOnly: Bool = true) throws -> DeviceRecord {
        let own = try #require(ProcessIdentity.current)
        let dead = ProcessIdentity(id: own.id, startTicks: own.startTicks &+ 1)
        let record = DeviceRecord(
            deviceID: Self.id, server: server ?? dead, imagePath: directory.path("gone.qed"),
            image: FileIdentity(high: 1, low: 2), deviceNonce: 7, isReadOnly: isReadOnly, startedAt: 0)
        try registry.record(record)
        for name in ["log", "log.1"] { try directory.write("words", to: "ublk\(Self.id).\(name)") }
        return record
    }

    private var filesOfTheDevice: [String] {
        get throws { try directory.contents().keys.filter { $0.contains("\(Self.id)") }.sorted() }
    }

    /// - Returns: what the user was told.
    private func remove(_ record: DeviceRecord, force: Bool = false, _ driver: Driver) throws -> [String] {
        let told = Mutex<[String]>([])
        let removal = DeviceRemoval(force: force, timeoutSeconds: 5, registry: registry) { word in
            told.withLock { $0.append(word) }
        }
        try removal.remove(record, UblkControlDevice(channel: driver))
        return told.withLock { $0 }
    }

    @Test func serverDoesIt() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sleep")
        process.arguments = ["1000"]
        try process.run()
        defer { process.terminate() }
        let id = process.processIdentifier
        let server = try ServerThread(directory, deviceID: Self.id) { _ in
            kill(id, SIGKILL)
            return .success(.null)
        }
        defer { server.stop() }
        let driver = Driver(nonce: 7)
        let found: ProcessIdentity? = ProcessIdentity(running: id)
        let identity: ProcessIdentity = try #require(found)
        let record = try makeRecord(server: identity)
        #expect(try remove(record, force: true, driver).isEmpty)
        #expect(server.requests == [.stop(force: true, timeoutSeconds: 5)])
        #expect(driver.codes.isEmpty)
    }

    @Test(arguments: [ControlReply.FailureCode.busy, .failed])
    func serverRefuses(code: ControlReply.FailureCode) throws {
        let server = try ServerThread(directory, deviceID: Self.id) { _ in .failure(code, "it is in use") }
        defer { server.stop() }
        let record = try makeRecord(server: ProcessIdentity.current)
        do {
            _ = try remove(record, Driver(nonce: 7))
            Issue.record("it was removed")
        } catch RemovalError.refused(let isBusy, let sentence) {
            #expect(isBusy == (code == .busy) && sentence == "it is in use")
        }
        #expect(registry.record(of: Self.id) == record)
    }

    @Test func whatHasNeitherServerNorDeviceLeavesNothing() throws {
        let driver = Driver(nonce: nil)
        #expect(try remove(makeRecord(server: nil), driver).isEmpty)
        #expect(try filesOfTheDevice.isEmpty)
        #expect(!driver.codes.contains(.stopDevice))
    }

    /// What its image lacks cannot be kept by a refusal: it is told.
    @Test func imageThatIsGoneDoesNotKeepTheRecord() throws {
        let told = try remove(makeRecord(server: nil, isReadOnly: false), Driver(nonce: nil))
        #expect(told.count == 1 && told[0].contains("gone.qed: no such file"), "\(told)")
        #expect(try filesOfTheDevice.isEmpty)
    }

    @Test func deviceThatHasEndedIsDeleted() throws {
        let driver = Driver(nonce: 7)
        #expect(try remove(makeRecord(server: nil), driver).isEmpty)
        #expect(driver.codes.contains(.deleteDevice) && !driver.codes.contains(.stopDevice))
        #expect(try filesOfTheDevice.isEmpty)
    }

    /// The number is another device's by now, and nobody has said to remove that.
    @Test func anotherDeviceOfTheSameNumberStays() throws {
        let driver = Driver(nonce: 8)
        let record = try makeRecord(server: nil)
        do {
            _ = try remove(record, driver)
            Issue.record("it was removed")
        } catch RemovalError.gone(_, let image) {
            #expect(image == record.imagePath)
        }
        #expect(driver.codes == [.getDeviceInfo])
        #expect(registry.record(of: Self.id) == nil)
    }
}

/// `stats`, asked of a server.
@Suite struct DeviceFiguresTests {
    private let directory: TemporaryDirectory
    private let registry: DeviceRegistry

    init() throws {
        directory = try TemporaryDirectory()
        registry = DeviceRegistry(directory: directory.path)
    }

    private func makeRecord(_ id: UInt32) throws {
        let found: ProcessIdentity? = ProcessIdentity.current
        let own = try #require(found)
        try registry.record(
            DeviceRecord(
                deviceID: id, server: own, imagePath: directory.path("a.qed"), image: FileIdentity(high: 1, low: 2),
                deviceNonce: 7, isReadOnly: false, startedAt: 0))
    }

    @Test func pauseComesLast() throws {
        let server = try ServerThread(directory, deviceID: 3) { request in
            switch request {
            case .stats: .success(["device": "ublkb3"])
            case .quiesce: .success(["microseconds": 12])
            default: .failure(.failed, "\(request)")
            }
        }
        defer { server.stop() }
        try makeRecord(3)
        #expect(try DeviceFigures.ofDevice(named: "3", quiesces: false, registry: registry) == ["device": "ublkb3"])
        #expect(server.requests == [.stats])
        #expect(
            try DeviceFigures.ofDevice(named: directory.path("a.qed"), quiesces: true, registry: registry)
                == ["device": "ublkb3", "quiesce-microseconds": 12])
    }

    @Test func refusalIsTheServers() throws {
        let server = try ServerThread(directory, deviceID: 3) { _ in .failure(.busy, "it is going") }
        defer { server.stop() }
        try makeRecord(3)
        #expect(throws: ServerRefusal(code: .busy, description: "it is going")) {
            _ = try DeviceFigures.ofDevice(named: "ublkb3", quiesces: false, registry: registry)
        }
    }

    @Test func oneDeviceIsMeant() throws {
        let image = directory.path("a.qed")
        #expect(throws: DeviceReferenceError.notFound(image)) {
            _ = try DeviceFigures.ofDevice(named: image, quiesces: false, registry: registry)
        }
        for id in [3, 4] as [UInt32] { try makeRecord(id) }
        #expect(throws: DeviceReferenceError.ambiguous(image, [3, 4])) {
            _ = try DeviceFigures.ofDevice(named: image, quiesces: false, registry: registry)
        }
        #expect(throws: DeviceReferenceError.ambiguous(image, [3, 4])) {
            try DeviceRemoval(force: false, registry: registry) { _ in }.remove(named: image)
        }
    }
}
