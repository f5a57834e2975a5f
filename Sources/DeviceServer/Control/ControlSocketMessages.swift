import Platform

// What goes over a device's control socket: one line of words to the server, one line of JSON back, then the end. For other
// programs: docs/control-socket.md.
//
//     status                          {"ok":true,"result":{…}}
//     stats                           {"ok":true,"result":{"requests":{…},"storage-operations":{…},"queues":[…]}}
//     flush
//     quiesce                         {"ok":true,"result":{"microseconds":250}}
//     snapshot PATH                   {"ok":true,"result":{"snapshot":"/…/NAME.qed","microseconds":250}}
//     snapshot overlay PATH           the same, and the device goes on in the file of that path
//     rollback [force] PATH           {"ok":true,"result":{"snapshot":"/…/NAME.qed","left":["/…/LATER.qed"]}}
//     commit [keep=N] [into=PATH]     {"ok":true,"result":{"into":"/…/BASE.qed","removed":["/…/NAME.qed"]}}
//     flatten                         {"ok":true,"result":{"image":"/…/NAME.qed","forgotten":["/…/BASE.qed"]}}
//     warm [offset=BYTES] [length=BYTES]  {"ok":true,"result":{"image":"/…/NAME.qed","fetched":1048576}}
//     warm ranges=PATH                the same
//     resize [+]BYTES                 {"ok":true,"result":{"size":1073741824}}
//     commit-pause, commit-resume, commit-cancel
//     stop [force] [timeout=SECONDS]  {"ok":false,"code":"busy","error":"…"}
//     stop lazy
//     leave
//
// PATH is absolute, with %XX for what is no letter, digit or one of /-._~
//
// From a shell: echo status | socat - UNIX-CONNECT:/run/qed-ublk/ublk0.sock

/// What a client asks of a device's server.
public enum ControlRequest: Equatable, Sendable {
    case status
    /// What the queues have counted since the server began.
    case stats
    /// Make everything that was written durable.
    case flush
    /// Let the requests that are under way end on all queues at once, and go on: says how long new ones have waited for it.
    case quiesce
    /// Keep the disk's content of this moment in a file of that path, and go on over it. `isOverlay`: keep it in the image's
    /// file, and go on in one of that path.
    case snapshot(path: String, isOverlay: Bool)
    /// Put the disk back to what a file beneath the image has. `force`: even though the disk is in use.
    case rollback(path: String, force: Bool)
    /// Merge snapshots beneath the image into one file. The newest `keep` of them stay.
    case commit(keep: Int, into: String?)
    case commitChange(CommitChange)
    /// Copy what lies beneath the image into it, and let it lie over nothing.
    case flatten
    /// Fetch what the image does not have of some of the disk from the bottom of its chain.
    case warm(WarmPart)
    /// Compare what the image has kept with the base.
    case verify
    /// Make the disk larger: to a size, or by a difference.
    case resize(sizeBytes: UInt64, isDifference: Bool)
    /// Take the disk away and end the server. `force`: even though the disk is in use.
    case stop(force: Bool, timeoutSeconds: Int)
    /// At once, or else when its last user has gone.
    case stopWhenUnused
    /// Make everything durable, and leave the device, in use or not, to the next server.
    case leave

    public enum WarmPart: Equatable, Sendable {
        /// `lengthBytes`: nil: up to the end.
        case range(deviceOffset: UInt64, lengthBytes: UInt64?)
        /// The ranges of a file of `add --record`, in their order.
        case recorded(path: String)
    }

    /// What a merge, or a copy for `flatten` or `warm`, that is under way can be told.
    public enum CommitChange: String, Sendable, CaseIterable {
        case pause = "commit-pause"
        case resume = "commit-resume"
        case cancel = "commit-cancel"
    }

    /// Raised when a request, or what an answer has, is taken away or changes its meaning.
    static let protocolVersion = 1

    /// The longest line, its end included.
    public static let limitBytes = 4096
    /// For `stop` without a timeout.
    public static let defaultStopTimeoutSeconds = 30
    public static let stopTimeoutRange = 0...86_400
    /// Of snapshots that a merge leaves: no chain has more.
    public static let keepRange = 0...1000
}

/// A line that is no request, in one sentence.
public struct ControlRequestError: Error, Equatable, CustomStringConvertible {
    public var description: String
}

extension ControlRequest {
    /// Reads a request, with or without its line end.
    public init(line: some Collection<UInt8>) throws(ControlRequestError) {
        guard let text = String(validating: line, as: UTF8.self) else {
            throw ControlRequestError(description: "the request is not UTF-8")
        }
        let words = text.split(whereSeparator: \.isWhitespace)
        guard let name = words.first else { throw ControlRequestError(description: "the request is empty") }
        let arguments = words.dropFirst()
        switch name {
        case "status": self = .status
        case "stats": self = .stats
        case "flush": self = .flush
        case "quiesce": self = .quiesce
        case "flatten": self = .flatten
        case "verify": self = .verify
        case "leave": self = .leave
        case "stop":
            self = try Self.stop(arguments)
            return
        case "snapshot":
            let (isOverlay, path) = try Self.path(arguments, after: "overlay", of: "snapshot")
            self = .snapshot(path: path, isOverlay: isOverlay)
            return
        case "rollback":
            let (force, path) = try Self.path(arguments, after: "force", of: "rollback")
            self = .rollback(path: path, force: force)
            return
        case "resize":
            guard arguments.count == 1, let text = arguments.first,
                let size = UInt64(text.hasPrefix("+") ? text.dropFirst() : text)
            else { throw ControlRequestError(description: "'resize' takes one number of bytes, with a + in front a difference") }
            self = .resize(sizeBytes: size, isDifference: text.hasPrefix("+"))
            return
        case "commit":
            self = try Self.commit(arguments)
            return
        case "warm":
            self = .warm(try Self.warm(arguments))
            return
        default:
            guard let change = CommitChange(rawValue: String(name)) else {
                throw ControlRequestError(
                    description:
                        "unknown request '\(name.prefix(40))': use status, stats, flush, quiesce, snapshot, rollback, "
                        + "commit, flatten, warm, verify, resize, stop or leave"
                )
            }
            self = .commitChange(change)
        }
        guard arguments.isEmpty else { throw ControlRequestError(description: "'\(name)' takes no arguments") }
    }

    private static func path(_ text: Substring) -> String? {
        guard let path = PercentEncoding.decode(text), path.hasPrefix("/"), !path.utf8.contains(0) else { return nil }
        return path
    }

    /// - Parameter word: that may come first.
    /// - Returns: whether it does, and the path.
    private static func path(
        _ arguments: ArraySlice<Substring>, after word: String, of request: String
    ) throws(ControlRequestError) -> (Bool, String) {
        let hasWord = arguments.first.map { $0 == word } ?? false
        let paths = arguments.dropFirst(hasWord ? 1 : 0)
        guard paths.count == 1, let path = path(paths.first ?? "") else {
            throw ControlRequestError(
                description: "'\(request)' takes '\(word)', or not, and one absolute path, with %XX where need be")
        }
        return (hasWord, path)
    }

    private static func commit(_ arguments: ArraySlice<Substring>) throws(ControlRequestError) -> ControlRequest {
        var (keep, into): (Int, String?) = (0, nil)
        for argument in arguments {
            if argument.hasPrefix("keep="), let count = Int(argument.dropFirst(5)), keepRange.contains(count) {
                keep = count
            } else if argument.hasPrefix("into="), let path = path(argument.dropFirst(5)) {
                into = path
            } else {
                throw ControlRequestError(
                    description: "'commit' does not take '\(argument.prefix(40))': use keep=N (0 to \(keepRange.upperBound)) and "
                        + "into=PATH, absolute, with %XX where need be")
            }
        }
        return .commit(keep: keep, into: into)
    }

    private static func warm(_ arguments: ArraySlice<Substring>) throws(ControlRequestError) -> WarmPart {
        var (offset, length): (UInt64?, UInt64?) = (nil, nil)
        for argument in arguments {
            if arguments.count == 1, argument.hasPrefix("ranges="), let path = path(argument.dropFirst(7)) {
                return .recorded(path: path)
            } else if argument.hasPrefix("offset="), offset == nil, let bytes = UInt64(argument.dropFirst(7)) {
                offset = bytes
            } else if argument.hasPrefix("length="), length == nil, let bytes = UInt64(argument.dropFirst(7)) {
                length = bytes
            } else {
                throw ControlRequestError(
                    description: "'warm' does not take '\(argument.prefix(40))': use offset=BYTES and length=BYTES, or "
                        + "ranges=PATH alone, absolute, with %XX where need be")
            }
        }
        return .range(deviceOffset: offset ?? 0, lengthBytes: length)
    }

    private static func stop(_ arguments: ArraySlice<Substring>) throws(ControlRequestError) -> ControlRequest {
        if arguments == ["lazy"] { return .stopWhenUnused }
        var force = false
        var timeoutSeconds = defaultStopTimeoutSeconds
        for argument in arguments {
            if argument == "force" {
                force = true
            } else if argument.hasPrefix("timeout="), let seconds = Int(argument.dropFirst(8)),
                stopTimeoutRange.contains(seconds)
            {
                timeoutSeconds = seconds
            } else {
                throw ControlRequestError(
                    description: "'stop' does not take '\(argument.prefix(40))': use force and timeout=SECONDS (0 to "
                        + "\(stopTimeoutRange.upperBound)), or lazy alone")
            }
        }
        return .stop(force: force, timeoutSeconds: timeoutSeconds)
    }

    /// The request as a line, without its end.
    public var line: String {
        switch self {
        case .status: "status"
        case .stats: "stats"
        case .flush: "flush"
        case .quiesce: "quiesce"
        case .snapshot(let path, let isOverlay):
            "snapshot \(isOverlay ? "overlay " : "")\(PercentEncoding.encode(path))"
        case .rollback(let path, let force): "rollback \(force ? "force " : "")\(PercentEncoding.encode(path))"
        case .commit(let keep, let into):
            "commit keep=\(keep)\(into.map { " into=\(PercentEncoding.encode($0))" } ?? "")"
        case .commitChange(let change): change.rawValue
        case .flatten: "flatten"
        case .warm(.range(let offset, let length)): "warm offset=\(offset)\(length.map { " length=\($0)" } ?? "")"
        case .warm(.recorded(let path)): "warm ranges=\(PercentEncoding.encode(path))"
        case .verify: "verify"
        case .leave: "leave"
        case .resize(let size, let isDifference): "resize \(isDifference ? "+" : "")\(size)"
        case .stopWhenUnused: "stop lazy"
        case .stop(let force, let timeoutSeconds): "stop\(force ? " force" : "") timeout=\(timeoutSeconds)"
        }
    }
}

/// A server's answer.
package enum ControlReply: Equatable, Sendable {
    case success(JSONValue)
    case failure(FailureCode, String)

    /// Why, for programs; the sentence beside it is for people.
    public enum FailureCode: String, Sendable, CaseIterable {
        /// The request is not one.
        case badRequest = "bad-request"
        /// The disk is in use, or the server has too many clients.
        case busy
        /// Tried, and did not succeed.
        case failed
        /// Not possible in the device's state, or with this kernel.
        case unavailable
    }

    /// The longest line, its end included.
    public static let limitBytes = 65_536

    /// The answer as one line with its end.
    var line: [UInt8] {
        let json: JSONValue =
            switch self {
            case .success(let result): ["ok": true, "result": result]
            case .failure(let code, let sentence):
                ["ok": false, "code": .string(code.rawValue), "error": .string(sentence)]
            }
        let line = Array(json.description.utf8) + [UInt8(ascii: "\n")]
        guard line.count <= Self.limitBytes else {
            return Self.failure(.failed, "the reply of \(line.count) bytes is longer than \(Self.limitBytes)").line
        }
        return line
    }

    /// nil where the line is no reply. An unknown code counts as `failed`.
    init?(line: some Collection<UInt8>) {
        guard let json = JSONValue(parsing: line), let isSuccess = json["ok"]?.truth else { return nil }
        if isSuccess {
            self = .success(json["result"] ?? .null)
        } else {
            guard let sentence = json["error"]?.text else { return nil }
            self = .failure(json["code"]?.text.flatMap(FailureCode.init(rawValue:)) ?? .failed, sentence)
        }
    }
}
