/// Why a command may not have been answered, and what to do: the end of the sentence of `UblkControlError.timedOut`.
func timeoutHint(
    for command: UblkCommand, deviceID: UInt32?, kernel: KernelRelease? = .running
) -> String {
    let node = deviceID.map(UblkPaths.characterDevice) ?? "its character device"
    let disk = deviceID.map(UblkPaths.blockDevice) ?? "its disk"
    return switch command {
    case .addDevice:
        kernel?.ublkDefect ?? "the ublk driver is stuck, so look for its reason in the kernel log (dmesg)"
    case .startDevice, .endRecovery:
        "not every queue of its server has fetched its requests, or the partition table cannot be read"
    case .stopDevice, .tryStopDevice:
        "requests are still under way or a file system writes back its data, so see that its server is running"
    case .deleteDevice:
        "something still refers to it, so unmount and close \(disk) and end the process that has \(node) open"
    case .quiesce:
        "requests are still under way"
    default:
        "another command, such as a stop in progress, may hold the device"
    }
}
