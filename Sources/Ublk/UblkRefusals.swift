import SystemPackage

extension Errno {
    /// ENODEV, by the meaning it has here.
    static var noSuchDevice: Errno { .operationNotSupportedByDevice }
    /// EOPNOTSUPP, by the meaning it has here.
    static var unknownCommand: Errno { .notSupportedOnSocket }
}

/// What an errno of a control command means, and what to do: the part of the sentence after "cannot start ublk device
/// 0: ".
///
/// From the driver's sources of Linux 6.12 and 7.3; the same errno means something else for each command.
func refusalReason(command: UblkCommand, deviceID: UInt32?, errno: Errno) -> String {
    commandReason(command, id: deviceID, errno) ?? commonReason(command, id: deviceID, errno)
}

private func commandReason(_ command: UblkCommand, id: UInt32?, _ errno: Errno) -> String? {
    let node = id.map(UblkPaths.characterDevice) ?? "its character device"
    let disk = id.map(UblkPaths.blockDevice) ?? "its disk"

    return switch (command, errno) {
    case (.addDevice, .fileExists):
        "this device id is in use; choose another, or none to let the kernel choose"
    case (.addDevice, .permissionDenied):
        "the kernel's limit on ublk devices is reached; delete one, or raise "
            + "/sys/module/ublk_drv/parameters/ublks_max"
    case (.addDevice, .invalidArgument):
        "the kernel takes no device of this combination of id, queues, queue depth, I/O size and features"
    case (.addDevice, .noMemory):
        "the kernel has no memory for it; use fewer queues or a smaller queue depth"
    case (.addDevice, .noSpace):
        "every device id is in use; delete a device"
    case (.addDevice, .noSuchDevice), (.addDevice, .unknownCommand):
        "\(KernelRelease.tooOld)"

    case (.setParameters, .permissionDenied):
        "it has been started already, and parameters can only be set before"
    case (.setParameters, .invalidArgument):
        "the kernel does not accept these block sizes or limits"

    case (.getParameters, .invalidArgument):
        "this kernel's parameters have another layout than this program's"

    case (.getQueueAffinity, .invalidArgument):
        "it has no such queue"

    case (.startDevice, .invalidArgument):
        "either no parameters are set, or the process named as its server is not the one that opened \(node) "
            + "(in a container both must live in one pid namespace)"
    case (.startDevice, .fileExists):
        "it is live already, or its previous disk is still open somewhere; close \(disk) and try again"
    case (.startDevice, .resourceBusy):
        "it was stopped and its server still has \(node) open; end that server, or delete the device and add it again"

    case (.stopDevice, .interrupted):
        "the stop was interrupted; try again"
    case (.tryStopDevice, .resourceBusy):
        "\(disk) is in use; unmount it and close what has it open, or force the stop"
    case (.tryStopDevice, .noSuchDevice):
        "there is no such device, or it is not started"

    case (.deleteDevice, .resourceBusy), (.deleteDeviceAsync, .resourceBusy):
        "it is in use; unmount and close \(disk) first"
    case (.deleteDeviceAsync, .invalidArgument):
        "the kernel deletes an unprivileged user's device only with waiting"

    case (.startRecovery, .resourceBusy):
        "its old server still has \(node) open, or the kernel has not noticed yet that it died; end the old server "
            + "and try again"
    case (.startRecovery, .invalidArgument), (.endRecovery, .invalidArgument):
        "it was added without recovery, or the process named as its server is not the one that opened \(node); "
            + "without recovery it can only be deleted"
    case (.endRecovery, .resourceBusy):
        "it is not waiting for a server"

    case (.quiesce, .resourceBusy):
        "its requests did not come to rest in time; new ones are held back, so finish the hand-over or stop the device"
    case (.quiesce, .noSuchDevice), (.updateSize, .noSuchDevice):
        "there is no such device, or it is not started"
    case (.quiesce, .unknownCommand):
        "it was added without QUIESCE, which needs Linux 6.16 or later"

    default: nil
    }
}

private func commonReason(_ command: UblkCommand, id: UInt32?, _ errno: Errno) -> String {
    switch errno {
    case .notPermitted, .permissionDenied:
        "this needs root (CAP_SYS_ADMIN), or the device belongs to someone else"
    case .noSuchDevice:
        "there is no such device"
    case .unknownCommand:
        "this kernel's ublk driver does not know \(command.rawValue), which needs Linux \(command.firstKernel) or later"
    case .interrupted:
        "a signal interrupted it; try again"
    case .noMemory:
        "the kernel has no memory for it"
    case .invalidArgument:
        "the kernel refuses \(command.rawValue) with these values (EINVAL)"
    default:
        "\(errno) (errno \(errno.rawValue) of \(command.rawValue))"
    }
}
