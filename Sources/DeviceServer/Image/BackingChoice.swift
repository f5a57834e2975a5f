import BlockStorage

/// What may be opened because an image names it, as the user has said it: from the command line to the server, and in the
/// device's record to the next one.
public struct BackingChoice: Equatable, Sendable {
    /// An image that names a backing file is refused.
    public var refusesBackingFiles: Bool
    public var allowsBlockDevices: Bool
    /// Where backing files may lie; anywhere, where there are none. Absolute where another process is to have them.
    public var directories: [String]
    /// Patterns of addresses; those of the machine's own file come in addition.
    public var bases: [String]
    /// Seconds; 0: reads wait for a base that is away, however long. Nil: as usual.
    public var baseTimeoutSeconds: UInt32?

    public init(
        refusesBackingFiles: Bool = false, allowsBlockDevices: Bool = false, directories: [String] = [],
        bases: [String] = [], baseTimeoutSeconds: UInt32? = nil
    ) {
        self.refusesBackingFiles = refusesBackingFiles
        self.allowsBlockDevices = allowsBlockDevices
        self.directories = directories
        self.bases = bases
        self.baseTimeoutSeconds = baseTimeoutSeconds
    }

    /// Holds the directories open: the names are looked up now.
    public func policy() throws(ImageFileError) -> BackingPolicy {
        var policy = BackingPolicy(refusesBackingFiles: refusesBackingFiles, allowsBlockDevices: allowsBlockDevices)
        if !directories.isEmpty {
            policy.directories = try directories.map { path throws(ImageFileError) in try HeldDirectory(path) }
        }
        policy.bases = bases
        policy.asksMachineForBases = true
        if let seconds = baseTimeoutSeconds {
            policy.baseTimeoutNanoseconds = seconds == 0 ? nil : UInt64(seconds) * 1_000_000_000
        }
        return policy
    }
}

/// The same as options of `add`.
extension BackingChoice {
    public var arguments: [String] {
        (refusesBackingFiles ? ["--no-backing"] : []) + (allowsBlockDevices ? ["--backing-devices"] : [])
            + directories.flatMap { ["--backing-dir", $0] } + bases.flatMap { ["--base-allow", $0] }
            + (baseTimeoutSeconds.map { ["--base-timeout", String($0)] } ?? [])
    }

    /// - Throws: where they are not those that `arguments` makes: of a record that somebody else has written.
    public init(arguments words: [String]) throws(BackingArgumentError) {
        self.init()
        var rest = words[...]
        while let word = rest.popFirst() {
            switch word {
            case "--no-backing": refusesBackingFiles = true
            case "--backing-devices": allowsBlockDevices = true
            case "--backing-dir":
                guard let directory = rest.popFirst(), !directory.isEmpty else { throw BackingArgumentError(words: words) }
                directories.append(directory)
            case "--base-allow":
                guard let pattern = rest.popFirst(), !pattern.isEmpty else { throw BackingArgumentError(words: words) }
                bases.append(pattern)
            case "--base-timeout":
                guard let seconds = rest.popFirst().flatMap({ UInt32($0) }) else {
                    throw BackingArgumentError(words: words)
                }
                baseTimeoutSeconds = seconds
            default: throw BackingArgumentError(words: words)
            }
        }
        guard !refusesBackingFiles || (directories.isEmpty && !allowsBlockDevices && bases.isEmpty) else {
            throw BackingArgumentError(words: words)
        }
    }
}

/// What is recorded of a device's backing files, or told to its server, makes no sense: nothing is opened by it.
public struct BackingArgumentError: Error, Equatable, CustomStringConvertible {
    public let words: [String]

    public var description: String {
        "'\(words.joined(separator: " "))' does not say which backing files may be opened; if a device's record says so, remove "
            + "the device ('qed-ublk del --force'), and add the image again"
    }
}
