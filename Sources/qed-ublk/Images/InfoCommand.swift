import ArgumentParser
import BlockStorage
import DeviceServer
import ImageTools
import Platform
import QEDChain
import QEDEngine
import QEDFormat

struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Show what an image is.",
        discussion: """
            Reads little more than the header, without locks: the image may be in use, and its backing file may be missing, \
            unless --backing-chain asks for that too.

            The block size is what 'add' gives the image's device: 512, unless the disk has a partition table (GPT) for blocks \
            of 4096, or --block-size says otherwise. The access is how its server treats the image's file: past the page cache \
            (direct) where direct I/O on it takes pieces as small as the device's blocks, else through it (buffered).

            Example: qed-ublk info --backing-chain overlay.qed

            Exit status:
            \(ExitStatus.tableOfTool([.unusableImage: "not a usable image"], without: [.busy]))
            """)

    @Argument(help: "The image.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Flag(help: "Show the backing files too.")
    var backingChain = false

    @OptionGroup var backing: BackingOptions
    @OptionGroup var output: OutputOption

    @Flag(name: [.customShort("U"), .long], help: "Accepted for the sake of scripts: no lock is taken anyway.")
    var forceShare = false

    func validate() throws {
        guard backingChain || !backing.isGiven else {
            throw ValidationError("without --backing-chain no backing file is opened: leave the options for them out")
        }
    }

    func run() throws {
        guard backingChain else {
            let description = try ImageDescription(reading: file)
            let blocks = try BlockChoice(ofNewDeviceOf: file, backing: nil)
            switch output.format {
            case .human: try printOutput("\(description.text)\n\(blocks.text)")
            case .json: try printOutput(JSONValue.object(description.members + blocks.members).indented())
            }
            return
        }
        let policy = try backing.policy()
        let members = try ChainDescription(reading: file, policy: policy).members
        let blocks = try BlockChoice(ofNewDeviceOf: file, backing: policy)
        switch output.format {
        case .human:
            var texts = members.map(\.text)
            texts[0] += "\n\(blocks.text)"
            try printOutput(texts.joined(separator: "\n\n"))
        case .json:
            var lists = members.map(\.members)
            lists[0] += blocks.members
            try printOutput(JSONValue.array(lists.map(JSONValue.object)).indented())
        }
    }
}

extension BlockChoice {
    /// What `add` would choose now.
    /// - Parameter backing: how the files behind the image may be opened; nil: not at all.
    fileprivate init(ofNewDeviceOf path: String, backing: BackingPolicy?) throws {
        let chain = try ImageChain.open(
            path: path, isReadOnly: true, locking: .none, opensBackingFiles: backing != nil, policy: backing ?? .plainFiles)
        guard case .qed(let header, _) = chain[0].layer else { preconditionFailure("the image must be QED") }
        try self.init(
            wantedBytes: nil, imageSizeBytes: header.imageSizeBytes, partitionTable: PartitionTable(of: chain),
            directBytes: chain[0].file.directAlignment?.offsetBytes)
    }

    fileprivate var text: String {
        """
        block size: \(blockSizeBytes) (\(blockReason))
        access: \(isDirect ? "direct" : "buffered") (\(accessReason))
        """
    }

    fileprivate var members: [JSONValue.Member] {
        [
            .init("block-size", JSONValue(blockSizeBytes)), .init("block-size-reason", .string(blockReason)),
            .init("direct-io", .bool(isDirect)), .init("direct-io-reason", .string(accessReason)),
        ]
    }
}

extension ChainDescription.Member {
    fileprivate var text: String {
        switch self {
        case .qed(let description): description.text
        case .raw(let path, let sizeBytes, let allocatedBytes):
            """
            image: \(path.printable)
            file format: raw
            virtual size: \(SizeText.long(sizeBytes))
            disk size: \(allocatedBytes.map(SizeText.short) ?? "unknown (it is elsewhere)")
            """
        }
    }

    fileprivate var members: [JSONValue.Member] {
        switch self {
        case .qed(let description): description.members
        case .raw(let path, let sizeBytes, let allocatedBytes):
            [
                .init("filename", .string(path)), .init("format", "raw"), .init("virtual-size", JSONValue(sizeBytes)),
            ] + (allocatedBytes.map { [.init("actual-size", JSONValue($0))] } ?? []) + [.init("dirty-flag", false)]
        }
    }
}

// MARK: - For people

extension ImageDescription {
    /// One property per line, in the order of qemu-img.
    fileprivate var text: String {
        let geometry = header.geometry
        var lines = [
            "image: \(path)",
            "file format: qed",
            "virtual size: \(SizeText.long(header.imageSizeBytes))",
            "disk size: \(SizeText.short(allocatedBytes))",
            "cluster_size: \(geometry.clusterSizeBytes)",
            "table size: \(geometry.tableSizeClusters) clusters (\(SizeText.short(geometry.tableSizeBytes)))",
            "features: \(header.featureNames.isEmpty ? "none" : header.featureNames.joined(separator: ", "))",
            "need check: \(header.needsCheck ? "yes" : "no")",
        ]
        if let limitation = geometry.qemuLimitation {
            lines.append("note: \(limitation)")
        }
        if let backing {
            lines.append("backing file: \(backing.name.text)\(backing.state.remark(name: backing.name.text))")
            let format = backing.declaredFormat?.rawValue ?? "qed (implied: not declared raw)"
            lines.append("backing file format: \(format)")
        }
        return lines.map(\.printable).joined(separator: "\n")
    }
}

extension ImageDescription.Backing.State {
    /// What to say behind the name, where the name alone does not say it.
    fileprivate func remark(name: String) -> String {
        switch self {
        case .present(let path): path == name ? "" : " (actual path: \(path))"
        case .missing(let path): path == name ? " (missing)" : " (actual path: \(path), missing)"
        case .inaccessible(let path, let errno): " (actual path: \(path), not accessible: \(errno))"
        case .unusableName(.looksLikeProtocol): " (not the name of a file: not supported)"
        case .elsewhere: " (elsewhere: see --backing-chain)"
        case .unusableName(.notUTF8): " (not valid UTF-8: not supported)"
        }
    }
}

// MARK: - For programs

extension ImageDescription {
    /// The keys of qemu-img where it has them.
    fileprivate var members: [JSONValue.Member] {
        var members: [JSONValue.Member] = [
            .init("filename", .string(path)),
            .init("format", .string("qed")),
            .init("virtual-size", JSONValue(header.imageSizeBytes)),
            .init("actual-size", JSONValue(allocatedBytes)),
            .init("file-size", JSONValue(fileSizeBytes)),
            .init("cluster-size", JSONValue(header.geometry.clusterSizeBytes)),
            .init("table-size", JSONValue(header.geometry.tableSizeClusters)),
            .init("header-size", JSONValue(header.headerSizeClusters)),
            .init("features", .array(header.featureNames.map(JSONValue.string))),
            .init("compat-features", JSONValue(header.compatFeatures)),
            .init("autoclear-features", JSONValue(header.autoclearFeatures)),
            .init("dirty-flag", .bool(header.needsCheck)),
        ]
        if let limitation = header.geometry.qemuLimitation {
            members.append(.init("qemu-limitation", .string("\(limitation)")))
        }
        if let backing {
            members.append(.init("backing-filename", .string(backing.name.text)))
            members.append(.init("backing-file-state", .string(backing.state.keyword)))
            if let value = backing.state.path { members.append(.init("full-backing-filename", .string(value))) }
            if let value = (backing.declaredFormat?.rawValue) { members.append(.init("backing-filename-format", .string(value))) }
        }
        return members
    }
}

extension ImageDescription.Backing.State {
    fileprivate var keyword: String {
        switch self {
        case .present: "present"
        case .missing: "missing"
        case .inaccessible: "inaccessible"
        case .elsewhere: "elsewhere"
        case .unusableName: "unusable-name"
        }
    }

    fileprivate var path: String? {
        switch self {
        case .present(let path), .missing(let path), .inaccessible(let path, _): path
        case .elsewhere, .unusableName: nil
        }
    }
}

extension QEDHeader {
    fileprivate var featureNames: [String] {
        let names: [(QEDFeatures, String)] = [
            (.backingFile, "backing-file"),
            (.needCheck, "need-check"),
            (.backingFormatNoProbe, "backing-format-no-probe"),
        ]
        return names.filter { features.contains($0.0) }.map(\.1)
    }
}
