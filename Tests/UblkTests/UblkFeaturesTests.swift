import Testing

@testable import Ublk

struct UblkFeaturesTests {
    private static let flags: [(UblkFeatures, Int, String)] = [
        (.zeroCopy, 0, "SUPPORT_ZERO_COPY"), (.completionInTask, 1, "URING_CMD_COMP_IN_TASK"),
        (.needGetData, 2, "NEED_GET_DATA"), (.userRecovery, 3, "USER_RECOVERY"),
        (.recoveryReissue, 4, "USER_RECOVERY_REISSUE"), (.unprivileged, 5, "UNPRIVILEGED_DEV"),
        (.ioctlEncoding, 6, "CMD_IOCTL_ENCODE"), (.userCopy, 7, "USER_COPY"), (.zoned, 8, "ZONED"),
        (.recoveryFailIO, 9, "USER_RECOVERY_FAIL_IO"), (.updateSize, 10, "UPDATE_SIZE"),
        (.autoBufferRegistration, 11, "AUTO_BUF_REG"), (.quiesce, 12, "QUIESCE"),
        (.perIODaemon, 13, "PER_IO_DAEMON"), (.bufferRegistrationOffDaemon, 14, "BUF_REG_OFF_DAEMON"),
        (.batchIO, 15, "BATCH_IO"), (.integrity, 16, "INTEGRITY"), (.safeStop, 17, "SAFE_STOP_DEV"),
        (.noPartitionScan, 18, "NO_AUTO_PART_SCAN"), (.sharedMemoryZeroCopy, 19, "SHMEM_ZC"),
        (.descriptorSize, 20, "IO_DESC_SIZE"),
    ]

    @Test(arguments: flags)
    func eachFlagHasItsBitAndName(feature: UblkFeatures, bit: Int, name: String) {
        #expect(feature.rawValue == 1 << UInt64(bit))
        #expect(feature.names == [name])
    }

    @Test func namesAreListedFromTheLowestBitAndUnknownBitsByNumber() {
        let features: UblkFeatures = [UblkFeatures(rawValue: 1 << 63), .userCopy, .userRecovery]
        #expect(features.names == ["USER_RECOVERY", "USER_COPY", "BIT_63"])
        #expect(features.description == "USER_RECOVERY, USER_COPY, BIT_63")
        #expect(UblkFeatures().description == "none")
    }
}
