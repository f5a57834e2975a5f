import ArgumentParser
import BlockStorage
import DeviceServer
import Platform

/// One disk over a base elsewhere for all of a machine's clones.
struct CacheCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cache",
        abstract: "Disks that keep what is read of a base elsewhere, for clones over them.",
        discussion: """
            A cache is a disk that nobody writes to. What is read of it is fetched from its base once, and kept, also over a \
            restart of the machine; clones that lie over it (create -b /dev/qed/NAME -F raw) share it. See docs/bases.md.

            Example: qed-ublk cache create debian --base nbd://images/debian --limit 20G

            Exit status:
            \(ExitStatus.table)
            """,
        subcommands: [
            CacheCreateCommand.self, CacheListCommand.self, CacheWarmCommand.self, CacheVerifyCommand.self,
            CacheDropCommand.self,
        ])
}

/// Of the commands that are about one cache.
struct CacheArgument: ParsableArguments {
    @Argument(
        help: "The cache: its name, or its device.",
        completion: .custom { _, _, _ in
            ((try? KnownDevices.all()) ?? []).compactMap { $0.record.flatMap(BaseCache.init)?.record.name?.text }
        },
        transform: PathArgument.parse)
    var name: String
}

struct CacheListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the caches of this machine.",
        discussion: """
            What it has of its base (KEPT), as its files take it on their file system; how much that may become (LIMIT); how \
            many devices lie over it (CLONES). Whether its base is there 'qed-ublk list -v' says.

            Example: qed-ublk cache list

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var output: OutputOption

    func run() throws {
        let records = try KnownDevices.all().compactMap(\.record)
        let caches = records.compactMap(BaseCache.init)
        switch output.format {
        case .json: try printOutput(JSONValue.array(caches.map { json($0, records) }).indented())
        case .human:
            let rows = caches.map { cache in
                [
                    cache.record.name?.text ?? "-", cache.devicePath, SizeText.short(cache.keptBytes),
                    cache.limitBytes.map(SizeText.short) ?? "-", "\(cache.cloneCount(among: records))",
                    (cache.record.base?.address ?? "-").printable,
                ]
            }
            try printOutput(TextTable.lines([["NAME", "DEVICE", "KEPT", "LIMIT", "CLONES", "BASE"]] + rows))
        }
    }

    private func json(_ cache: BaseCache, _ records: [DeviceRecord]) -> JSONValue {
        .object([
            .init("name", cache.record.name.map { .string($0.text) } ?? .null), .init("device", .string(cache.devicePath)),
            .init("image", .string(cache.record.imagePath)), .init("kept", JSONValue(cache.keptBytes)),
            .init("limit", cache.limitBytes.map { JSONValue($0) } ?? .null),
            .init("clones", JSONValue(cache.cloneCount(among: records))),
            .init("base", cache.record.base.map { .string($0.address) } ?? .null),
        ])
    }
}

struct CacheWarmCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "warm",
        abstract: "Fetch what a cache does not have yet of its base.",
        discussion: """
            All of it, or what a file of 'add --record' has, in its order. A cache with a limit gets half of that at most. \
            Where this command is ended it goes on; 'qed-ublk warm --cancel' ends it.

            Example: qed-ublk cache warm debian

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var cache: CacheArgument

    @Option(
        help: ArgumentHelp("A file of 'add --record'.", valueName: "file"), completion: .file(),
        transform: PathArgument.parse)
    var ranges: String?

    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    func run() throws {
        let part: ControlRequest.WarmPart =
            try ranges.map { .recorded(path: try AbsolutePath.ofFile($0)) } ?? .range(deviceOffset: 0, lengthBytes: nil)
        let cache = try BaseCache.named(cache.name)
        let answer = try DeviceWarming.run(deviceNamed: cache.devicePath, part, progress: progress.bar)
        if output.format == .json { return try printOutput(answer.indented()) }
        guard !progress.quiet else { return }
        let bytes = answer["fetched"]?.integer(as: UInt64.self) ?? 0
        try printOutput("\(cache.devicePath): has \(bytes) bytes more of its base.")
    }
}

struct CacheVerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Compare what a cache has kept with its base.",
        discussion: """
            Reads all of that from both, while the cache works, up to the first difference: then the base has changed, or what \
            was kept has, and the exit status is 1. Drop the cache then.

            Example: qed-ublk cache verify debian

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var cache: CacheArgument
    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    func run() throws {
        let cache = try BaseCache.named(cache.name)
        let answer = try DeviceVerification.run(of: cache.record, progress: progress.bar)
        if output.format == .json { try printOutput(answer.indented()) }
        if let offset = answer["first-difference"]?.integer(as: UInt64.self) {
            throw CacheDifference(path: cache.devicePath, deviceOffset: offset)
        }
        guard output.format == .human, !progress.quiet else { return }
        let bytes = answer["compared"]?.integer(as: UInt64.self) ?? 0
        try printOutput("\(cache.devicePath): all \(bytes) bytes that it has kept are what its base has.")
    }
}

struct CacheDifference: ReportableError {
    let path: String
    let deviceOffset: UInt64

    var exitStatus: ExitStatus { .failure }
    var description: String {
        "\(path): what it has kept is not what its base has, from byte \(deviceOffset) on; drop it, and make clones anew that "
            + "have read it"
    }
}

struct CacheDropCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drop",
        abstract: "Remove a cache, with what it has kept.",
        discussion: """
            A cache that has clones, or is in use otherwise, is refused. One that has no device, after a restart of the \
            machine, say, is found by its name too, where its image is in \
            \(BaseCache.standardDirectory).

            Example: qed-ublk cache drop debian

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var cache: CacheArgument

    func run() throws {
        do {
            try BaseCache.named(cache.name).drop(tell: printError)
        } catch let error as DeviceReferenceError {
            guard case .notFound = error, let name = DeviceName(cache.name) else { throw error }
            try BaseCache.dropImage(of: cache.name, at: BaseCache.standardPath(of: name))
        }
    }
}
