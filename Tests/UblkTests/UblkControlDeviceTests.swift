import CSupport
import Glibc
import SystemPackage
import Testing

@testable import Ublk

struct UblkControlDeviceTests {
    private func info(
        id: UInt32 = 4, state: UInt16 = CS_UBLK_S_DEV_LIVE, features: UblkFeatures = []
    ) -> cs_ublk_device_info {
        var info = cs_ublk_device_info()
        info.dev_id = id
        info.state = state
        info.nr_hw_queues = 2
        info.queue_depth = 64
        info.max_io_buf_bytes = 1 << 20
        info.flags = features.rawValue
        return info
    }

    @Test(.enabled(if: access(UblkPaths.control, F_OK) != 0, "this machine has ublk"))
    func withoutTheModuleOpeningSaysSo() {
        #expect(controlError { () throws(UblkControlError) in _ = try UblkControlDevice() } == .noDriver)
    }

    @Test func openingExplainsWhatIsWrongWithTheNode() {
        let missing = "/nonexistent/ublk-control"
        #expect(controlError { () throws(UblkControlError) in _ = try UblkControlDevice(path: missing) } == .noDriver)
        #expect(
            controlError { () throws(UblkControlError) in _ = try UblkControlDevice(path: "/tmp") }
                == .cannotOpen(path: "/tmp", .isDirectory))
    }

    @Test func addingAsksForOneIdInBothPlacesAndReturnsWhatWasGranted() throws {
        let driver = ScriptedDriver { command, _ in
            guard let buffer = command.buffer else { return .completed(-EINVAL) }
            let asked = buffer.load(as: cs_ublk_device_info.self)
            guard asked.dev_id == command.deviceID, command.header.queue_id == 0xFFFF else {
                return .completed(-EINVAL)
            }
            guard asked.nr_hw_queues == 8, asked.queue_depth == 128, asked.max_io_buf_bytes == 1 << 20 else {
                return .completed(-EINVAL)
            }
            var granted = asked
            granted.dev_id = asked.dev_id == .max ? 11 : asked.dev_id
            granted.nr_hw_queues = 2
            granted.flags = UblkFeatures([.userRecovery, .ioctlEncoding]).rawValue
            buffer.bytes.storeBytes(of: granted, as: cs_ublk_device_info.self)
            return .completed(0)
        }
        let control = UblkControlDevice(channel: driver)
        let chosen = try control.addDevice(
            queues: 8, queueDepth: 128, maxIOSizeBytes: 1 << 20, features: [.userRecovery, .quiesce])
        #expect(chosen.id == 11)
        #expect(chosen.queueCount == 2)
        #expect(chosen.features == [.userRecovery, .ioctlEncoding])
        let given = try control.addDevice(
            id: 3, queues: 8, queueDepth: 128, maxIOSizeBytes: 1 << 20, features: .userRecovery)
        #expect(given.id == 3)
    }

    private struct Asked: Sendable {
        var id: UInt32?
        var queues = 1
        var depth = 128
        var size = 1 << 20
        var word: String
    }

    private static let impossible = [
        Asked(queues: 0, word: "queues"), Asked(queues: 4097, word: "queues"), Asked(depth: 0, word: "depth"),
        Asked(depth: 4097, word: "depth"), Asked(size: 512, word: "I/O size"), Asked(size: 1 << 32, word: "I/O size"),
        Asked(id: 1 << 20, word: "id"), Asked(id: .max, word: "id"),
    ]

    @Test(arguments: impossible)
    private func numbersOutOfRangeNeverReachTheDriver(asked: Asked) throws {
        let driver = ScriptedDriver(results: [0])
        let error = try #require(
            controlError { () throws(UblkControlError) in
                _ = try UblkControlDevice(channel: driver).addDevice(
                    id: asked.id, queues: asked.queues, queueDepth: asked.depth, maxIOSizeBytes: asked.size,
                    features: [])
            })
        #expect(error.description.contains(asked.word), "\(error)")
        #expect(driver.commands.isEmpty)
    }

    @Test func impossibleParametersNeverReachTheDriver() throws {
        let driver = ScriptedDriver(results: [0])
        let control = UblkControlDevice(channel: driver)
        var parameters = UblkParameters(basic: .init(attributes: [], maxSectors: 2048, deviceSectors: 100))
        try control.setParameters(parameters, of: UblkDeviceInfo(info()))
        #expect(driver.codes == [.setParameters])
        parameters.basic.maxSectors = 2049
        let error = controlError { () throws(UblkControlError) in
            try control.setParameters(parameters, of: UblkDeviceInfo(info()))
        }
        guard case .invalidParameters = error else {
            Issue.record("not refused: \(String(describing: error))")
            return
        }
        #expect(driver.commands.count == 1)
    }

    @Test func featuresAreNoneWhereTheDriverCannotBeAsked() throws {
        for code in [-EOPNOTSUPP, -ENODEV, -EINVAL] {
            #expect(try UblkControlDevice(channel: ScriptedDriver(results: [code])).features() == nil)
        }
        let driver = ScriptedDriver { command, _ in
            command.buffer?.bytes.storeBytes(of: 0x89, as: UInt64.self)
            return .completed(command.buffer?.bytes.count == 8 ? 0 : -EINVAL)
        }
        #expect(try UblkControlDevice(channel: driver).features() == [.zeroCopy, .userRecovery, .userCopy])
        let refused = controlError { () throws(UblkControlError) in
            _ = try UblkControlDevice(channel: ScriptedDriver(results: [-EPERM])).features()
        }
        #expect(refused == .refused(.getFeatures, deviceID: nil, .notPermitted))
    }

    @Test func interruptedStartAndEndOfRecoveryAreSentAgain() throws {
        let driver = ScriptedDriver(results: [-EINTR, -EINTR, 0])
        try UblkControlDevice(channel: driver).startDevice(4, serverProcess: 99, timeout: .seconds(60))
        #expect(driver.codes == [.startDevice, .startDevice, .startDevice])
        #expect(driver.commands.allSatisfy { $0.argument == 99 && $0.deviceID == 4 })

        let recovery = ScriptedDriver(results: [-EINTR, 0])
        try UblkControlDevice(channel: recovery).endRecovery(4, serverProcess: 99, timeout: .seconds(60))
        #expect(recovery.codes == [.endRecovery, .endRecovery])
    }

    @Test func endlessInterruptionEndsAtTheDeadline() {
        let error = controlError { () throws(UblkControlError) in
            try UblkControlDevice(channel: ScriptedDriver(results: [-EINTR]))
                .startDevice(4, serverProcess: 99, timeout: .milliseconds(20))
        }
        guard case .timedOut(.startDevice, deviceID: 4, after: .milliseconds(20), _) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func interruptedStopIsReported() {
        let driver = ScriptedDriver(results: [-EINTR])
        let error = controlError { () throws(UblkControlError) in
            try UblkControlDevice(channel: driver).stopDevice(4, timeout: .seconds(60))
        }
        #expect(error == .refused(.stopDevice, deviceID: 4, .interrupted))
        #expect(driver.commands.count == 1)
    }

    @Test func interruptedDeleteIsFollowedUntilTheDeviceIsGone() throws {
        let driver = ScriptedDriver(results: [-EINTR, 0, 0, -ENODEV])
        try UblkControlDevice(channel: driver).deleteDevice(4, timeout: .seconds(60))
        #expect(driver.codes == [.deleteDevice, .getDeviceInfo, .getDeviceInfo, .getDeviceInfo])
    }

    @Test func deviceThatStaysAfterAnInterruptedDeleteIsATimeout() {
        let driver = ScriptedDriver(results: [-EINTR, 0])
        let error = controlError { () throws(UblkControlError) in
            try UblkControlDevice(channel: driver).deleteDevice(4, timeout: .milliseconds(50))
        }
        guard case .timedOut(.deleteDevice, deviceID: 4, _, let hint) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(hint.contains("/dev/ublkc4"))
    }

    @Test(arguments: [ControlOutcome.cancelled, .abandoned])
    func unansweredCommandsAreTimeouts(outcome: ControlOutcome) {
        let error = controlError { () throws(UblkControlError) in
            try UblkControlDevice(channel: ScriptedDriver { _, _ in outcome }).stopDevice(4, timeout: .seconds(7))
        }
        guard case .timedOut(.stopDevice, deviceID: 4, after: .seconds(7), _) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test func recoveryWaitsForTheOldServerToBeGone() throws {
        let driver = ScriptedDriver(results: [-EBUSY, -EBUSY, 0])
        try UblkControlDevice(channel: driver).startRecovery(4, timeout: .seconds(60))
        #expect(driver.codes == [.startRecovery, .startRecovery, .startRecovery])
    }

    @Test func recoveryOfAServedDeviceIsRefusedAtTheDeadline() {
        let error = controlError { () throws(UblkControlError) in
            try UblkControlDevice(channel: ScriptedDriver(results: [-EBUSY])).startRecovery(4, timeout: .zero)
        }
        #expect(error == .refused(.startRecovery, deviceID: 4, .resourceBusy))
    }

    @Test func sizeChangesOnlyOnLiveDevicesThatCan() throws {
        func driver(state: UInt16, features: UblkFeatures) -> ScriptedDriver {
            ScriptedDriver { command, _ in
                command.buffer?.bytes.storeBytes(
                    of: self.info(state: state, features: features), as: cs_ublk_device_info.self)
                return .completed(0)
            }
        }
        let able = driver(state: CS_UBLK_S_DEV_LIVE, features: .updateSize)
        try UblkControlDevice(channel: able).updateSize(4, deviceSectors: 1 << 40)
        #expect(able.codes == [.getDeviceInfo, .updateSize])
        #expect(able.commands.last?.argument == 1 << 40)

        let old = driver(state: CS_UBLK_S_DEV_LIVE, features: [])
        let missing = controlError { () throws(UblkControlError) in
            try UblkControlDevice(channel: old).updateSize(4, deviceSectors: 8)
        }
        #expect(missing == .featureMissing(.updateSize, deviceID: 4, .updateSize))
        #expect(old.codes == [.getDeviceInfo])

        let dead = driver(state: CS_UBLK_S_DEV_DEAD, features: .updateSize)
        let notLive = controlError { () throws(UblkControlError) in
            try UblkControlDevice(channel: dead).updateSize(4, deviceSectors: 8)
        }
        #expect(notLive == .wrongState(.updateSize, deviceID: 4, .dead))
        #expect(dead.codes == [.getDeviceInfo])
    }

    @Test func quiesceNeverAsksForNoLimit() throws {
        let driver = ScriptedDriver(results: [0])
        let control = UblkControlDevice(channel: driver)
        try control.quiesce(4, timeout: .zero)
        try control.quiesce(4, timeout: .milliseconds(2500))
        #expect(driver.commands.map(\.argument) == [1, 2500])
    }

    @Test func affinityIsTheBitsThatAreSet() throws {
        let driver = ScriptedDriver { command, _ in
            guard command.argument == 1, let bytes = command.buffer?.bytes, bytes.count % 8 == 0 else {
                return .completed(-EINVAL)
            }
            bytes[0] = 0b1000_0001
            bytes[8] = 0b10
            return .completed(0)
        }
        #expect(try UblkControlDevice(channel: driver).queueAffinity(4, queue: 1) == [0, 7, 65])
    }

    @Test func parametersAreReadBack() throws {
        let parameters = UblkParameters(
            basic: .init(attributes: .volatileCache, maxSectors: 1024, deviceSectors: 1 << 30),
            discard: .init(granularityBytes: 65536))
        let driver = ScriptedDriver { command, _ in
            // The driver copies no more than the length that the buffer itself states.
            guard let bytes = command.buffer?.bytes, bytes.load(as: UInt32.self) == 152 else {
                return .completed(-EINVAL)
            }
            bytes.storeBytes(of: parameters.encoded(), as: cs_ublk_params.self)
            return .completed(0)
        }
        #expect(try UblkControlDevice(channel: driver).parameters(4) == parameters)
        #expect(try UblkControlDevice(channel: ScriptedDriver(results: [0])).parameters(4) == nil)
    }

    @Test func missingDeviceIsNilOrRefused() throws {
        let control = UblkControlDevice(channel: ScriptedDriver(results: [-ENODEV]))
        #expect(try control.existingDeviceInfo(4, timeout: .seconds(1)) == nil)
        let error = controlError { () throws(UblkControlError) in _ = try control.deviceInfo(4) }
        #expect(error == .refused(.getDeviceInfo, deviceID: 4, .noSuchDevice))
    }
}
