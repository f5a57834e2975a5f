import BlockStorage
import CSupport
import Platform
import Testing

@testable import DeviceServer
@testable import Ublk

/// What `list` calls a device.
@Suite struct KnownDeviceTests {
    private func state(_ driverState: UInt16, hasServer: Bool, isRecoverable: Bool = true, hasFailed: Bool = false) throws
        -> String
    {
        let own = try #require(ProcessIdentity.current)
        let server = hasServer ? own : ProcessIdentity(id: own.id, startTicks: own.startTicks &+ 1)
        var record = DeviceRecord(
            deviceID: 3, server: server, imagePath: "/a.qed", image: FileIdentity(high: 1, low: 2), deviceNonce: 7,
            isReadOnly: false,
            startedAt: 0)
        record.hasFailed = hasFailed
        var info = cs_ublk_device_info()
        info.dev_id = 3
        info.state = driverState
        info.flags = (isRecoverable ? UblkFeatures.userRecovery : []).rawValue
        var device = KnownDevice(record: record)
        device.info = UblkDeviceInfo(info)
        return device.state
    }

    @Test func isOneOfThoseThatTheHelpNames() throws {
        #expect(try state(CS_UBLK_S_DEV_LIVE, hasServer: true) == "live")
        #expect(try state(CS_UBLK_S_DEV_LIVE, hasServer: true, hasFailed: true) == "failed")
        #expect(try state(CS_UBLK_S_DEV_QUIESCED, hasServer: false) == "waiting")
        // Linux 6.12 takes its time to notice a death.
        #expect(try state(CS_UBLK_S_DEV_LIVE, hasServer: false) == "waiting")
        #expect(try state(CS_UBLK_S_DEV_DEAD, hasServer: false) == "dead")
        #expect(try state(CS_UBLK_S_DEV_LIVE, hasServer: false, isRecoverable: false) == "dead")
        // The server that was killed has not quite ended, or the next one has not taken over yet.
        for driverState in [CS_UBLK_S_DEV_QUIESCED, CS_UBLK_S_DEV_FAIL_IO] {
            #expect(try state(driverState, hasServer: true) == "waiting")
        }
    }
}
