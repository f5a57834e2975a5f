import ArgumentParser
import DeviceServer

struct DelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "del",
        abstract: "Remove a device.",
        discussion: """
            Returns when the device is gone, everything that was written to it is in the image, and the image is free for \
            other programs. A device that is in use is refused, and the sentence says by what: it, or a partition of it, is \
            mounted, swap, under another device, served by the kernel to other machines, or open in a program.

            Of several devices one that cannot be removed does not keep the others from it.

            Example: qed-ublk del /dev/ublkb0

            Exit status:
            \(ExitStatus.table)
            """)

    @Argument(help: DeviceArgument.help, completion: DeviceArgument.completion, transform: PathArgument.parse)
    var device: [String] = []

    @Flag(help: "All devices.")
    var all = false

    @Flag(
        help: "Remove it even though it is in use: what its users have not written yet is written, and then they get I/O errors.")
    var force = false

    @Flag(help: "One that is in use goes when its last user has gone; until then it works, and its state is 'leaving'.")
    var lazy = false

    @Option(
        help: ArgumentHelp(
            "With --force: how long what its users have not written yet may take to be written. (default: 30)",
            valueName: "seconds"))
    var timeout: Int?

    func validate() throws {
        guard all != !device.isEmpty else { throw ValidationError("name the devices, or use --all") }
        guard !lazy || !force else { throw ValidationError("--force does not wait for its users: leave out --lazy") }
        guard let timeout else { return }
        guard ControlRequest.stopTimeoutRange.contains(timeout) else {
            throw ValidationError("--timeout must be between 0 and \(ControlRequest.stopTimeoutRange.upperBound) seconds")
        }
        guard force else { throw ValidationError("--timeout goes with --force: a disk that nobody uses has nothing to wait for") }
    }

    func run() throws {
        let removal = DeviceRemoval(
            force: force, timeoutSeconds: timeout ?? ControlRequest.defaultStopTimeoutSeconds, isLazy: lazy, tell: printError)
        var failures = FailureList()
        for name in device {
            do { try removal.remove(named: name) } catch { failures.note(error) }
        }
        if all { try removal.removeAll { failures.note($0) } }
        try failures.end()
    }
}
