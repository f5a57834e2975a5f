import ArgumentParser
import BlockStorage
import DeviceServer
import NBDStorage
import Platform

struct CacheCreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Make a cache of a base elsewhere, or give one its device again.",
        discussion: """
            Prints the device's path; /dev/qed/NAME leads to it. The image is made, unless it is there and lies over the same \
            base: then it goes on with what it has kept. Where anything fails nothing is left behind.

            Example: qed-ublk cache create debian --base nbd://images/debian

            Exit status:
            \(ExitStatus.table)
            """)

    @Argument(help: "A name for it, as for 'add --name'.", transform: DeviceName.parse)
    var name: DeviceName

    @Option(help: ArgumentHelp("The base's address, as for 'create --base'. It may be opened.", valueName: "address"))
    var base: String

    @Option(
        help: ArgumentHelp(
            """
            What it keeps takes about so much at most, 16M or more: then what was kept first, and not read lately, goes. \
            (default: as much as its file system has, but for a sixteenth)
            """, valueName: "size"), transform: SizeArgument.parse)
    var limit: UInt64?

    @Option(
        help: ArgumentHelp(
            "The image's path. (default: \(BaseCache.standardDirectory)/NAME.qed)", valueName: "file"), completion: .file(),
        transform: PathArgument.parse)
    var image: String?

    @Option(
        help: ArgumentHelp(
            "How long reads wait for a base that is away; 0: for ever. (default: 120)", valueName: "seconds"))
    var baseTimeout: UInt32?

    func validate() throws {
        guard NBDAddress.isMeant(by: base) else {
            throw ValidationError("--base takes the address of an NBD export; a file on this machine needs no cache")
        }
        do throws(NBDAddressError) { _ = try NBDAddress(base) } catch { throw ValidationError(error.description) }
        if let limit, !ServerConfiguration.keepLimits.contains(limit) {
            throw ValidationError("--limit must be 16M or more")
        }
    }

    func run() throws {
        try BaseCache.create(
            name, address: base, imagePath: try image.map { try AbsolutePath.ofFile($0) }, limitBytes: limit,
            baseTimeoutSeconds: baseTimeout, warn: printError, announce: printOutput)
    }
}
