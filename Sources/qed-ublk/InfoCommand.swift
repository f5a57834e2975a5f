import ArgumentParser
import DeviceServer
import ImageTools
import QEDEngine
import QEDFormat

struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Show what an image is.",
        discussion: """
            Reads the header alone, without locks: the image may be in use, and its backing file may be missing, \
            unless --backing-chain asks for that too.

            Example: qed-ublk info --backing-chain overlay.qed

            Exit status:
               0  done
               1  an I/O error
               2  not a usable image
               4  file or backing file not found
               5  no permission
              64  wrong usage
            """)

    @Argument(help: "The image.", transform: PathArgument.parse)
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
            switch output.format {
            case .human: try printOutput(description.text)
            case .json: try printOutput(description.json.indented())
            }
            return
        }
        let members = try ChainDescription(reading: file, policy: try backing.policy()).members
        switch output.format {
        case .human: try printOutput(members.map(\.text).joined(separator: "\n\n"))
        case .json: try printOutput(JSONValue.array(members.map(\.json)).indented())
        }
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
            disk size: \(SizeText.short(allocatedBytes))
            """
        }
    }

    fileprivate var json: JSONValue {
        switch self {
        case .qed(let description): description.json
        case .raw(let path, let sizeBytes, let allocatedBytes):
            [
                "filename": .string(path), "format": "raw", "virtual-size": JSONValue(sizeBytes),
                "actual-size": JSONValue(allocatedBytes), "dirty-flag": false,
            ]
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
        case .unusableName(.notUTF8): " (not valid UTF-8: not supported)"
        }
    }
}

// MARK: - For programs

extension ImageDescription {
    /// The keys of qemu-img where it has them.
    fileprivate var json: JSONValue {
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
        return .object(members)
    }
}

extension ImageDescription.Backing.State {
    fileprivate var keyword: String {
        switch self {
        case .present: "present"
        case .missing: "missing"
        case .inaccessible: "inaccessible"
        case .unusableName: "unusable-name"
        }
    }

    fileprivate var path: String? {
        switch self {
        case .present(let path), .missing(let path), .inaccessible(let path, _): path
        case .unusableName: nil
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
