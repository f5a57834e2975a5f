import Platform

/// Why a command may not have been answered, and what to do: the end of the sentence of `UblkControlError.timedOut`.
func timeoutHint(
    for command: UblkCommand, deviceID: UInt32?, kernel: KernelRelease? = .running
) -> String {
    let node = deviceID.map(UblkPaths.characterDevice) ?? "its character device"
    let disk = deviceID.map(UblkPaths.blockDevice) ?? "its disk"
    let unfetched = "not every queue of its server has fetched its requests, or the partition table cannot be read"
    return switch command {
    case .addDevice:
        kernel?.diagnosis(of: .addHangs)?.description
            ?? "the ublk driver is stuck, so look for its reason in the kernel log (dmesg)"
    case .startDevice:
        [unfetched, kernel?.diagnosis(of: .startHangs)?.description].compactMap { $0 }.joined(separator: "; or ")
    case .endRecovery:
        unfetched
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
