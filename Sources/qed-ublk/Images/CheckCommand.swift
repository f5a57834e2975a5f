import ArgumentParser
import DeviceServer
import ImageTools
import Platform
import QEDFormat

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check the structure of an image, and repair it on request.",
        discussion: """
            Every cluster of the file must have one owner, and every entry must point inside the file. The backing \
            file \
            is not looked at. Repairs can be interrupted and run again.

            -r leaks gives the space of leaked clusters back: those at the end are cut off, those between others \
            become \
            holes and stay leaked until 'qed-ublk compact'. -r all also drops entries that cannot be right; the guest \
            ranges that they mapped read as before they were written. Clusters with several owners are only reported, \
            unless --repair-cross-links gives each owner a copy: the guest has to find out whose content it was.

            Example: qed-ublk check -r all disk.qed

            Exit status:
            \(CheckStatus.table)
            """)

    enum Repair: String, ExpressibleByArgument, CaseIterable {
        case leaks
        case all
    }

    @Argument(help: "The image.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Option(name: [.customShort("r"), .long], help: ArgumentHelp("What to repair: leaks or all.", valueName: "what"))
    var repair: Repair?

    @Flag(help: "With -r all: give every owner of a shared cluster a copy of its own.")
    var repairCrossLinks = false

    @Flag(
        help: """
            With -r: repair the image even though a server of it has died and left writes that only its log has; they are \
            lost. Or a copy that was made while its image was in use.
            """)
    var force = false

    @Option(name: [.customShort("f"), .long], help: "The image's format; only qed is supported.")
    var format = DiskFormat.qed

    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var progress: ProgressOptions

    func validate() throws {
        guard format == .qed else { throw ValidationError("only QED images can be checked") }
        guard !repairCrossLinks || repair == .all else { throw ValidationError("--repair-cross-links needs -r all") }
        guard !force || repair != nil else { throw ValidationError("--force goes with -r") }
        guard repair == nil || !sharing.forceShare else {
            throw ValidationError("a repair needs the image for itself: -r and --force-share exclude each other")
        }
    }

    func run() throws {
        var check = ImageCheck(
            path: file, repair: repair == nil ? .nothing : repair == .all ? .all : .leaks,
            separatesCrossLinks: repairCrossLinks, sharing: sharing.forceShare)
        check.discardsLostSession = force
        let result: ImageCheck.Result
        do throws(ImageToolError) { result = try check.run(progress: progress.bar) } catch {
            throw CheckFailure(error: error)
        }
        switch output.format {
        case .json: try printOutput(json(result).indented())
        case .human:
            if !progress.quiet { try printOutput(text(result).map(\.printable).joined(separator: "\n")) }
        }
        let report = result.report
        if report.unreadableTables > 0 { throw ExitCode(CheckStatus.unchecked.rawValue) }
        if report.corruptions > 0 { throw ExitCode(CheckStatus.corrupt.rawValue) }
        if report.leakedClusters > 0 { throw ExitCode(CheckStatus.leaks.rawValue) }
    }

    /// An image that cannot be checked has the status of qemu-img, whatever the reason.
    private struct CheckFailure: ReportableError {
        let error: ImageToolError
        var exitStatus: ExitStatus { .failure }
        var description: String { "\(error)" }
    }
}

// MARK: - For people

extension CheckCommand {
    private func text(_ result: ImageCheck.Result) -> [String] {
        let report = result.report
        var lines: [String] = []
        if let repair = result.repair { lines += text(repair) }
        lines += report.invalidList.map { invalid in
            "ERROR \(invalid.isL1 ? "L1" : "L2") entry 0x\(String(invalid.value, radix: 16)) \(invalid.reason): "
                + CheckCommand.range(invalid)
        }
        lines += report.crossLinkList.map {
            "ERROR the cluster at file offset \($0.fileOffset) has \($0.owners.count) owners: "
                + $0.owners.map(\.description).joined(separator: ", ")
        }
        if report.corruptions == 0 && report.leakedClusters == 0 && report.unreadableTables == 0 {
            lines.append("No errors were found on the image.")
        }
        if report.corruptions > 0 {
            lines += [
                "", "\(report.corruptions) errors were found on the image.",
                "Data may be corrupted, or further writes to the image may corrupt it.",
            ]
        }
        if let sizeBytes = report.fileSizeToKeepCutClusters {
            lines.append(
                "The file ends inside a cluster in use. To keep what is left of it, make the file longer before any "
                    + "repair: truncate -s \(sizeBytes) \(file)")
        }
        if report.leakedClusters > 0 {
            lines += [
                "", "\(report.leakedClusters) leaked clusters were found on the image.",
                "This means waste of disk space, but no harm to data.",
            ]
        }
        if report.unreadableTables > 0 {
            lines += ["", "\(report.unreadableTables) internal errors have occurred during the check."]
        }
        if report.needsCheck { lines.append("The image is marked as not closed cleanly (NEED_CHECK).") }
        if report.totalClusters > 0, report.allocatedClusters > 0 {
            lines.append(
                "\(report.allocatedClusters)/\(report.totalClusters) = "
                    + "\(PercentText.of(report.allocatedClusters, in: report.totalClusters)) allocated, "
                    + "\(PercentText.of(report.fragmentedClusters, in: report.allocatedClusters)) fragmented, "
                    + "0.00% compressed clusters")
        }
        lines.append("Image end offset: \(report.imageEndFileOffset)")
        return lines
    }

    private func text(_ repair: RepairReport) -> [String] {
        var lines: [String] = []
        if repair.droppedEntries + repair.separatedClusters + repair.removedClusters > 0 {
            lines += [
                "The following inconsistencies were found and repaired:", "",
                "    \(repair.removedClusters) leaked clusters",
                "    \(repair.droppedEntries + repair.separatedClusters) corruptions", "",
            ]
        }
        lines += repair.droppedList.map { "dropped: \(CheckCommand.range($0))" }
        lines += repair.separatedList.map { link in
            "separated: the cluster at file offset \(link.fileOffset), shared by "
                + link.owners.map(\.description).joined(separator: ", ") + "; each has a copy now"
        }
        if repair.punchedClusters > 0 {
            lines.append(
                "\(repair.punchedClusters) leaked clusters between others take no space any more; "
                    + "'qed-ublk compact' removes them")
        }
        if repair.crossLinksKept {
            lines.append(
                "Clusters with several owners were left alone: their copies would take more than "
                    + "\(ImageCheck.largestGrowth) times the space of the image.")
        }
        switch repair.leaksKept {
        case .damaged: lines.append("Leaked clusters were left alone: in a damaged image they may be somebody's.")
        case .tablesDropped:
            lines.append(
                "Leaked clusters were left alone: they may belong to the tables that were dropped. "
                    + "Run it again to give them back.")
        case .tablesInHoles:
            lines.append(
                "Leaked clusters were left alone: more of the tables than can be read lies in holes of the file, and what "
                    + "a file system says of those is not enough to give anything up.")
        case nil: break
        }
        return lines.isEmpty ? [] : lines + [""]
    }

    private static func range(_ invalid: InvalidEntry) -> String {
        invalid.deviceRange.isEmpty
            ? "behind the end of the image"
            : "guest offsets \(invalid.deviceRange.lowerBound) to \(invalid.deviceRange.upperBound)"
    }
}

// MARK: - For programs

extension CheckCommand {
    private func json(_ result: ImageCheck.Result) -> JSONValue {
        let report = result.report
        var members: [JSONValue.Member] = [
            .init("filename", .string(file)), .init("format", "qed"),
            .init("check-errors", JSONValue(report.unreadableTables)),
            .init("image-end-offset", JSONValue(report.imageEndFileOffset)),
            .init("total-clusters", JSONValue(report.totalClusters)),
            .init("allocated-clusters", JSONValue(report.allocatedClusters)),
            .init("fragmented-clusters", JSONValue(report.fragmentedClusters)),
            .init("dirty-flag", .bool(report.needsCheck)),
        ]
        // As in qemu-img these are there only where they say something.
        func add(_ name: String, _ count: UInt64) {
            if count > 0 { members.append(.init(name, JSONValue(count))) }
        }
        add("corruptions", report.corruptions)
        add("leaks", report.leakedClusters)
        add("file-size-to-keep-cut-clusters", report.fileSizeToKeepCutClusters ?? 0)
        if !report.invalidList.isEmpty {
            members.append(.init("invalid-entries", .array(report.invalidList.map(CheckCommand.json))))
        }
        if !report.crossLinkList.isEmpty {
            members.append(.init("cross-links", .array(report.crossLinkList.map(CheckCommand.json))))
        }
        if let repair = result.repair {
            add("corruptions-fixed", repair.droppedEntries + repair.separatedClusters)
            add("leaks-fixed", repair.removedClusters)
            add("leaks-punched", repair.punchedClusters)
            add("reclaimed-bytes", repair.reclaimedBytes)
            if !repair.droppedList.isEmpty {
                members.append(.init("dropped-entries", .array(repair.droppedList.map(CheckCommand.json))))
            }
            if !repair.separatedList.isEmpty {
                members.append(.init("separated-clusters", .array(repair.separatedList.map(CheckCommand.json))))
            }
        }
        return .object(members)
    }

    private static func json(_ invalid: InvalidEntry) -> JSONValue {
        [
            "table": .string(invalid.isL1 ? "l1" : "l2"), "value": JSONValue(invalid.value),
            "reason": .string("\(invalid.reason)"), "start": JSONValue(invalid.deviceRange.lowerBound),
            "length": JSONValue(invalid.deviceRange.upperBound - invalid.deviceRange.lowerBound),
            "count": JSONValue(invalid.count),
        ]
    }

    private static func json(_ link: CrossLink) -> JSONValue {
        [
            "file-offset": JSONValue(link.fileOffset),
            "owners": .array(
                link.owners.map { owner in
                    switch owner {
                    case .header: ["kind": "header"]
                    case .l1Table: ["kind": "l1-table"]
                    case .l2Table(let l1Index): ["kind": "l2-table", "l1-index": JSONValue(l1Index)]
                    case .data(let deviceOffset): ["kind": "data", "start": JSONValue(deviceOffset)]
                    }
                }),
        ]
    }
}

/// Shares with two decimals.
enum PercentText {
    static func of(_ part: UInt64, in whole: UInt64) -> String {
        guard whole > 0 else { return "0.00%" }
        let hundredths = Int((Double(part) * 10_000 / Double(whole)).rounded())
        let fraction = hundredths % 100
        return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)%"
    }
}
