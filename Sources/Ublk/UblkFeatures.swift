import CSupport

/// What a device or a driver can do: the `UBLK_F_…` flags.
///
/// Ask for some with `addDevice`, then read what was granted in the answer: the driver removes those it does not know
/// and adds those it insists on. Kernel versions are where a flag appeared first.
public struct UblkFeatures: OptionSet, Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Request data stays in the kernel's pages (6.15).
    public static let zeroCopy = UblkFeatures(rawValue: CS_UBLK_F_SUPPORT_ZERO_COPY)
    /// Deliveries happen in the fetching thread's task work; always on.
    public static let completionInTask = UblkFeatures(rawValue: CS_UBLK_F_URING_CMD_COMP_IN_TASK)
    /// The server asks for write data in a second round trip.
    public static let needGetData = UblkFeatures(rawValue: CS_UBLK_F_NEED_GET_DATA)
    /// The disk outlives its server: new requests wait for another one (6.1).
    public static let userRecovery = UblkFeatures(rawValue: CS_UBLK_F_USER_RECOVERY)
    /// With `userRecovery`: requests in flight at the server's death are sent again (6.1).
    public static let recoveryReissue = UblkFeatures(rawValue: CS_UBLK_F_USER_RECOVERY_REISSUE)
    /// The device belongs to a user without privileges (6.3).
    public static let unprivileged = UblkFeatures(rawValue: CS_UBLK_F_UNPRIVILEGED_DEV)
    /// Commands are encoded like ioctl numbers, as this module does; always on (6.4).
    public static let ioctlEncoding = UblkFeatures(rawValue: CS_UBLK_F_CMD_IOCTL_ENCODE)
    /// Data is copied by reading and writing the character device (6.5).
    public static let userCopy = UblkFeatures(rawValue: CS_UBLK_F_USER_COPY)
    /// Zoned devices (6.6).
    public static let zoned = UblkFeatures(rawValue: CS_UBLK_F_ZONED)
    /// With `userRecovery`: requests fail at once while there is no server (6.13).
    public static let recoveryFailIO = UblkFeatures(rawValue: CS_UBLK_F_USER_RECOVERY_FAIL_IO)
    /// A live device can change its size (6.16).
    public static let updateSize = UblkFeatures(rawValue: CS_UBLK_F_UPDATE_SIZE)
    /// The driver registers request buffers with the ring by itself (6.16).
    public static let autoBufferRegistration = UblkFeatures(rawValue: CS_UBLK_F_AUTO_BUF_REG)
    /// A server can leave its live device tidily; needs `userRecovery` (6.16).
    public static let quiesce = UblkFeatures(rawValue: CS_UBLK_F_QUIESCE)
    /// Each tag, not each queue, belongs to the thread that fetched it (6.16).
    public static let perIODaemon = UblkFeatures(rawValue: CS_UBLK_F_PER_IO_DAEMON)
    /// Any thread may register request buffers (6.17).
    public static let bufferRegistrationOffDaemon = UblkFeatures(rawValue: CS_UBLK_F_BUF_REG_OFF_DAEMON)
    /// Requests are fetched and committed in batches, with other commands (7.0).
    public static let batchIO = UblkFeatures(rawValue: CS_UBLK_F_BATCH_IO)
    /// Integrity data (7.0).
    public static let integrity = UblkFeatures(rawValue: CS_UBLK_F_INTEGRITY)
    /// `tryStopDevice` exists: a stop that refuses while the disk is open (7.0).
    public static let safeStop = UblkFeatures(rawValue: CS_UBLK_F_SAFE_STOP_DEV)
    /// The kernel does not look for partitions by itself (7.0).
    public static let noPartitionScan = UblkFeatures(rawValue: CS_UBLK_F_NO_AUTO_PART_SCAN)
    /// Zero copy through shared memory (7.1).
    public static let sharedMemoryZeroCopy = UblkFeatures(rawValue: CS_UBLK_F_SHMEM_ZC)
    /// The server chooses the size of a request descriptor (7.3).
    public static let descriptorSize = UblkFeatures(rawValue: CS_UBLK_F_IO_DESC_SIZE)

    /// What serving without copies needs: the driver registers the pages of each request with the queue's ring, and
    /// what must be in memory all the same is copied by reading and writing the character device.
    public static let servesPages: UblkFeatures = [.autoBufferRegistration, .userCopy]

    /// The kernel's names without their prefix, by bit.
    static let nameByBit = [
        "SUPPORT_ZERO_COPY", "URING_CMD_COMP_IN_TASK", "NEED_GET_DATA", "USER_RECOVERY", "USER_RECOVERY_REISSUE",
        "UNPRIVILEGED_DEV", "CMD_IOCTL_ENCODE", "USER_COPY", "ZONED", "USER_RECOVERY_FAIL_IO", "UPDATE_SIZE",
        "AUTO_BUF_REG", "QUIESCE", "PER_IO_DAEMON", "BUF_REG_OFF_DAEMON", "BATCH_IO", "INTEGRITY", "SAFE_STOP_DEV",
        "NO_AUTO_PART_SCAN", "SHMEM_ZC", "IO_DESC_SIZE",
    ]

    /// The kernel's name of each flag that is set, lowest bit first; `BIT_n` for one that has no name here.
    public var names: [String] {
        (0..<UInt64.bitWidth).filter { rawValue >> UInt64($0) & 1 == 1 }.map { bit in
            bit < Self.nameByBit.count ? Self.nameByBit[bit] : "BIT_\(bit)"
        }
    }
}

extension UblkFeatures: CustomStringConvertible {
    public var description: String { isEmpty ? "none" : names.joined(separator: ", ") }
}
