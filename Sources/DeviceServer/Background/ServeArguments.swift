/// What the process that serves a device is told, as its arguments.
///
/// Only this program starts it, so they are read by hand: an argument parser takes as many instructions as the rest of the
/// start.
extension ServerConfiguration {
    var serveArguments: [String] {
        var words = ["--queues", "\(queues)", "--depth", "\(queueDepth)"]
        if let blockSizeBytes { words += ["--block-size", "\(blockSizeBytes)"] }
        if let deviceID { words += ["--id", "\(deviceID)"] }
        if let name { words += ["--name", name.text] }
        if let link { words += ["--symlink", link.path] }
        if !scansPartitions { words.append("--no-partscan") }
        if isThrowAway { words.append("--snapshot") }
        if isUntrusted { words.append("--untrusted") }
        if isReadOnly { words.append("--read-only") }
        if !isRecoverable { words.append("--no-recovery") }
        if recovers { words.append("--recover") }
        if discardsLostSession { words.append("--force") }
        if zeroCopy != .auto { words += ["--zero-copy", zeroCopy.rawValue] }
        words += ["--cache-size", "\(cacheBytes)"]
        if keepsReads { words.append("--copy-on-read") }
        if let keepLimitBytes { words += ["--keep-limit", "\(keepLimitBytes)"] }
        if let recordPath { words += ["--record", recordPath] }
        if let prefetchPath { words += ["--prefetch", prefetchPath] }
        return words + backingArguments + ["--", imagePath]
    }

    /// - Throws: `ServeArgumentError`, `BackingArgumentError`, or why a directory of `--backing-dir` cannot be opened.
    init(serveArguments words: [String]) throws {
        var rest = words[...]
        func next() throws(ServeArgumentError) -> String {
            guard let word = rest.popFirst() else { throw ServeArgumentError(words: words) }
            return word
        }
        func number<Number: FixedWidthInteger>() throws(ServeArgumentError) -> Number {
            guard let number = Number(try next()) else { throw ServeArgumentError(words: words) }
            return number
        }
        self.init(imagePath: "")
        while imagePath.isEmpty {
            let word = try next()
            switch word {
            case "--queues": queues = try number()
            case "--depth": queueDepth = try number()
            case "--block-size": blockSizeBytes = try number()
            case "--id": deviceID = try number()
            case "--name":
                guard let name = DeviceName(try next()) else { throw ServeArgumentError(words: words) }
                self.name = name
            case "--symlink":
                let path = try next()
                guard path.utf8.first == UInt8(ascii: "/") else { throw ServeArgumentError(words: words) }
                link = DeviceLink(path: path)
            case "--no-partscan": scansPartitions = false
            case "--untrusted": isUntrusted = true
            case "--snapshot": isThrowAway = true
            case "--read-only": isReadOnly = true
            case "--no-recovery": isRecoverable = false
            case "--recover": recovers = true
            case "--force": discardsLostSession = true
            case "--zero-copy":
                guard let choice = ZeroCopyChoice(rawValue: try next()) else { throw ServeArgumentError(words: words) }
                zeroCopy = choice
            case "--cache-size": cacheBytes = try number()
            case "--copy-on-read": keepsReads = true
            case "--keep-limit": keepLimitBytes = try number()
            case "--record": recordPath = try next()
            case "--prefetch": prefetchPath = try next()
            case "--backing-dir", "--base-allow", "--base-timeout": backingArguments += [word, try next()]
            case "--no-backing", "--backing-devices": backingArguments.append(word)
            case "--": imagePath = try next()
            default: throw ServeArgumentError(words: words)
            }
        }
        let limits = ServerConfiguration.countLimits
        guard rest.isEmpty, limits.contains(queues), limits.contains(queueDepth),
            blockSizeBytes.map(ServerConfiguration.blockSizes.contains) ?? true,
            ServerConfiguration.cacheLimits.contains(cacheBytes),
            keepLimitBytes.map(ServerConfiguration.keepLimits.contains) ?? true,
            // Which device it is to take over.
            !recovers || deviceID != nil
        else { throw ServeArgumentError(words: words) }
        backing = try BackingChoice(arguments: backingArguments).policy()
    }
}

/// Somebody else has started the process.
public struct ServeArgumentError: Error, Equatable, CustomStringConvertible {
    let words: [String]

    public var description: String {
        "'\(words.joined(separator: " "))' is not what 'qed-ublk add' starts a server with; use 'add'"
    }
}
