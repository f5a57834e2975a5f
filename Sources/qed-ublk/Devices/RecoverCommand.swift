import ArgumentParser
import DeviceServer

struct RecoverCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover",
        abstract: "Give devices that have lost their server another one.",
        discussion: """
            When a server dies its device waits: what was asked of it is asked of the next server again, and nothing that it \
            had answered is lost. Prints the path of each device once it is served. With this a program can also be replaced \
            by a later version under a mounted file system: end the server (kill, systemctl stop), and recover.

            Example: qed-ublk recover --all

            Exit status:
            \(ExitStatus.table)
            """)

    @Argument(help: DeviceArgument.help, completion: DeviceArgument.completion, transform: PathArgument.parse)
    var device: String?

    @Flag(help: "All devices that wait; one that cannot be recovered does not keep the others from it.")
    var all = false

    @Flag(inversion: .prefixedNo, help: "Start another server whenever this one dies, too.")
    var supervise = true

    func validate() throws {
        guard all != (device != nil) else { throw ValidationError("name one device, or use --all") }
    }

    func run() throws {
        if let device { return try printOutput(DeviceRecovery.recover(named: device, isSupervised: supervise)) }
        var failures = FailureList()
        try DeviceRecovery.recoverAll(isSupervised: supervise, served: printOutput) { failures.note($0) }
        try failures.end()
    }
}
