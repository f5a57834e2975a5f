import CSupport
import Glibc
import Platform
import SystemPackage

// Add, start, stop, delete.
extension UblkControlDevice {
    /// Makes a device; its character device appears, its disk not yet.
    ///
    /// - Parameters:
    ///   - id: nil lets the driver choose.
    ///   - queues: 1 to 4096; the driver caps them to the number of processors.
    ///   - queueDepth: tags per queue, 1 to 4096.
    ///   - maxIOSizeBytes: at least a page; rounded down to one.
    ///   - features: those wanted; the answer holds those granted.
    ///   - serverFlags: 64 bits that the driver keeps, and hands out with everything else that it knows of the device.
    /// - Returns: the device as negotiated.
    public func addDevice(
        id: UInt32? = nil, queues: Int, queueDepth: Int, maxIOSizeBytes: Int, features: UblkFeatures,
        serverFlags: UInt64 = 0, timeout: Duration = promptTimeout
    ) throws(UblkControlError) -> UblkDeviceInfo {
        if let id { try checkRange(.addDevice, "the device id", Int(id), 0...Int(CS_UBLK_MAX_DEVICES) - 1) }
        try checkRange(.addDevice, "the number of queues", queues, 1...Int(CS_UBLK_MAX_QUEUES))
        try checkRange(.addDevice, "the queue depth", queueDepth, 1...Int(CS_UBLK_MAX_QUEUE_DEPTH))
        try checkRange(.addDevice, "the I/O size", maxIOSizeBytes, systemPageSizeBytes...Int(UInt32.max))

        var wanted = cs_ublk_device_info()
        wanted.dev_id = id ?? CS_UBLK_ANY_DEVICE
        wanted.nr_hw_queues = UInt16(queues)
        wanted.queue_depth = UInt16(queueDepth)
        wanted.max_io_buf_bytes = UInt32(maxIOSizeBytes)
        wanted.flags = features.rawValue
        wanted.ublksrv_flags = serverFlags
        let buffer = ControlBuffer(wanted)
        _ = try perform(
            ControlCommand(code: .addDevice, deviceID: wanted.dev_id, buffer: buffer), timeout: timeout)
        return UblkDeviceInfo(buffer.load(as: cs_ublk_device_info.self))
    }

    /// Describes the disk. Once, before `startDevice`; a recovering server must not: the parameters are kept.
    /// - Throws: `invalidParameters` where the driver would answer EINVAL.
    public func setParameters(
        _ parameters: UblkParameters, of device: UblkDeviceInfo
    ) throws(UblkControlError) {
        do {
            try parameters.validate(maxIOSizeBytes: device.maxIOSizeBytes)
        } catch {
            throw .invalidParameters(error)
        }
        _ = try perform(
            ControlCommand(
                code: .setParameters, deviceID: device.id, buffer: ControlBuffer(parameters.encoded())),
            timeout: Self.promptTimeout)
    }

    /// Makes the disk appear. Waits until every tag of every queue has been fetched, and on older kernels (6.12) for
    /// the reading of the partition table, so the queues must be serving on other threads meanwhile.
    /// - Parameter serverProcess: the process that has the character device open.
    public func startDevice(_ id: UInt32, serverProcess: Int32, timeout: Duration) throws(UblkControlError) {
        try checkRange(.startDevice, "the server's process id", Int(serverProcess), 1...Int(Int32.max))
        _ = try perform(
            ControlCommand(code: .startDevice, deviceID: id, argument: UInt64(serverProcess)), timeout: timeout)
    }

    /// Takes the disk away, in use or not. The queues must serve until it returns: dirty data of a mounted file system
    /// is written back, unless the device has `userRecovery` without `recoveryFailIO`, when it is *lost*; so sync
    /// first.
    public func stopDevice(_ id: UInt32, timeout: Duration) throws(UblkControlError) {
        _ = try perform(ControlCommand(code: .stopDevice, deviceID: id), timeout: timeout)
    }

    /// As `stopDevice`, but only when nobody has the disk open (7.0, feature `safeStop`).
    /// - Throws: `refused` with EBUSY where somebody has, with EOPNOTSUPP on older kernels.
    public func tryStopDevice(_ id: UInt32, timeout: Duration) throws(UblkControlError) {
        _ = try perform(ControlCommand(code: .tryStopDevice, deviceID: id), timeout: timeout)
    }

    /// Stops the device if need be, removes it, and waits until nothing refers to it any more: its character device
    /// with every mapping and ring registration, and its disk, must be closed. The server itself must close those
    /// first.
    public func deleteDevice(_ id: UInt32, timeout: Duration) throws(UblkControlError) {
        let deadline = Deadline(after: timeout)
        let result = try perform(
            ControlCommand(code: .deleteDevice, deviceID: id), timeout: timeout, accepting: [.interrupted])
        guard result == -EINTR else { return }
        try waitForRemoval(id, timeout: deadline.remaining)
    }

    /// As `deleteDevice`, but does not wait for the last reference (6.9). `waitForRemoval` does.
    public func deleteDeviceAsync(_ id: UInt32, timeout: Duration = promptTimeout) throws(UblkControlError) {
        _ = try perform(ControlCommand(code: .deleteDeviceAsync, deviceID: id), timeout: timeout)
    }

    /// Waits until a deleted device is gone and its id free.
    public func waitForRemoval(_ id: UInt32, timeout: Duration) throws(UblkControlError) {
        let deadline = Deadline(after: timeout)
        while true {
            guard !deadline.hasPassed else {
                throw .timedOut(
                    .deleteDevice, deviceID: id, after: timeout,
                    hint: timeoutHint(for: .deleteDevice, deviceID: id))
            }
            if try existingDeviceInfo(id, timeout: deadline.remaining) == nil { return }
            pause(.milliseconds(20))
        }
    }
}

// Another server for a device, another size.
extension UblkControlDevice {
    /// Waits until the driver has noticed that the device's server is gone, up to 30 s on 6.12, or the time is over.
    public func waitForServerDeath(_ id: UInt32, timeout: Duration) throws(UblkControlError) {
        let deadline = Deadline(after: timeout)
        while !deadline.hasPassed, try deviceInfo(id).state == .live { pause(.milliseconds(20)) }
    }

    /// Begins to serve a device whose server has gone: then open, map, fetch every tag, and `endRecovery`. Queues,
    /// depth and I/O size are the device's (`deviceInfo`), not this server's to choose.
    ///
    /// Repeated while the driver answers EBUSY: it may not have noticed the old server's death yet.
    public func startRecovery(_ id: UInt32, timeout: Duration) throws(UblkControlError) {
        let deadline = Deadline(after: timeout)
        while true {
            let remaining = deadline.remaining
            let isLastTry = remaining <= .milliseconds(100)
            let result = try perform(
                ControlCommand(code: .startRecovery, deviceID: id),
                timeout: isLastTry ? Self.promptTimeout : remaining,
                accepting: isLastTry ? [] : [.resourceBusy])
            if result >= 0 { return }
            pause(.milliseconds(50))
        }
    }

    /// Makes the device live again. Waits until every tag has been fetched, like `startDevice`.
    public func endRecovery(_ id: UInt32, serverProcess: Int32, timeout: Duration) throws(UblkControlError) {
        try checkRange(.endRecovery, "the server's process id", Int(serverProcess), 1...Int(Int32.max))
        _ = try perform(
            ControlCommand(code: .endRecovery, deviceID: id, argument: UInt64(serverProcess)), timeout: timeout)
    }

    /// Makes idle fetches come back aborted, so that the server can leave the device to another one (6.16, feature
    /// `quiesce`). Each queue needs one tag at rest within the timeout, else EBUSY, after which new requests stay held
    /// back.
    public func quiesce(_ id: UInt32, timeout: Duration) throws(UblkControlError) {
        // The driver takes 0 for "no limit".
        let milliseconds = max(1, timeout.milliseconds)
        _ = try perform(
            ControlCommand(code: .quiesce, deviceID: id, argument: UInt64(milliseconds)),
            timeout: timeout + .seconds(5))
    }

    /// Changes the size of a live disk (6.16, feature `updateSize`).
    ///
    /// Feature and state are checked here: the driver checks neither, and kernels before 7.0 fall over a device without
    /// a disk.
    public func updateSize(_ id: UInt32, deviceSectors: UInt64) throws(UblkControlError) {
        let info = try deviceInfo(id)
        guard info.features.contains(.updateSize) else {
            throw .featureMissing(.updateSize, deviceID: id, .updateSize)
        }
        guard info.state == .live else { throw .wrongState(.updateSize, deviceID: id, info.state) }
        _ = try perform(
            ControlCommand(code: .updateSize, deviceID: id, argument: deviceSectors), timeout: Self.promptTimeout)
    }
}
