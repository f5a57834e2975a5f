import Glibc
import Platform

/// The way of a server that may not see others' open files, as in its unit, to the one that may: `qed-ublk-users.socket`, whose
/// service (`UsersProcess`) looks at them for it.
///
/// From any thread; each question is a connection of its own.
enum UsersService {
    private static let variable = "QED_UBLK_USERS"
    private static let timeout = Duration.seconds(10)

    /// Where it listens; nil: this process looks itself, as everywhere but in the unit, which says where.
    private static let path: String? = {
        guard !ThreadCapabilities.maySeeAll, let path = getenv(variable).map({ String(cString: $0) }), path.hasPrefix("/") else {
            return nil
        }
        return path
    }()

    /// Whether this process has to ask.
    static var isNeeded: Bool { path != nil }

    /// Those who have a disk or a partition of it open, besides this process; nil: there is no answer.
    /// - Parameter id: the device's number.
    static func users(ofDevice id: UInt32, besides own: Int32? = nil) -> UsersAnswer.Users? {
        guard case .users(var users)? = ask(.users(id), within: timeout) else { return nil }
        users.processes.removeAll { $0.id == getpid() || $0.id == own }
        return users
    }

    /// Has what is dirty in file systems that are mounted from the disk written, wherever they are mounted. Waits for it, perhaps
    /// for ever.
    /// - Returns: what could not be written, in sentences; nil: there is no answer.
    static func writeBack(device id: UInt32) -> [String]? {
        guard case .unwritten(let sentences)? = ask(.writeBack(id), within: .seconds(1_000_000)) else { return nil }
        return sentences
    }

    private static func ask(_ question: UsersQuestion, within time: Duration) -> UsersAnswer? {
        guard let path else { return nil }
        return ask(question, at: path, within: time)
    }

    static func ask(_ question: UsersQuestion, at path: String, within time: Duration) -> UsersAnswer? {
        guard
            let line = try? ControlSocketClient.answer(
                to: Array("\(question.line)\n".utf8), at: ControlSocketAddress(path: path), timeout: time)
        else { return nil }
        return JSONValue(parsing: line).flatMap { UsersAnswer($0, to: question) }
    }
}

/// What the service is asked: of one device, by its number, and nothing else.
enum UsersQuestion: Equatable {
    case users(UInt32)
    case writeBack(UInt32)

    /// Of a line with its end.
    static let limitBytes = 32

    init?(line: String) {
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 2, !words[1].isEmpty, words[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let id = UInt32(words[1])
        else { return nil }
        switch words[0] {
        case "users": self = .users(id)
        case "write-back": self = .writeBack(id)
        default: return nil
        }
    }

    /// Without its end.
    var line: String {
        switch self {
        case .users(let id): "users \(id)"
        case .writeBack(let id): "write-back \(id)"
        }
    }
}

/// What the service answers: a line of JSON, far below what is read of one.
enum UsersAnswer: Equatable {
    struct Users: Equatable {
        /// Users before servers' processes for their own disk.
        var processes: [DiskUse.Process]
        /// There are others, who are not named.
        var hasMore = false
    }

    case users(Users)
    case unwritten([String])

    /// Of processes, and of sentences.
    private static let most = 16
    private static let longest = 400

    init(usedBy processes: [DiskUse.Process]) {
        let sorted = processes.filter { !$0.isOwnDisk } + processes.filter(\.isOwnDisk)
        self = .users(Users(processes: Array(sorted.prefix(Self.most)), hasMore: sorted.count > Self.most))
    }

    init(notWritten sentences: [String]) {
        self = .unwritten(sentences.prefix(Self.most).map { String($0.prefix(Self.longest)) })
    }

    /// nil for anything else than what is answered to the question.
    init?(_ json: JSONValue, to question: UsersQuestion) {
        switch question {
        case .users:
            guard case .array(let values)? = json["users"], let hasMore = json["more"]?.truth, values.count <= Self.most else {
                return nil
            }
            let processes = values.compactMap { DiskUse.Process($0) }
            guard processes.count == values.count else { return nil }
            self = .users(Users(processes: processes, hasMore: hasMore))
        case .writeBack:
            guard case .array(let values)? = json["unwritten"], let sentences = json["unwritten"]?.texts,
                sentences.count == values.count
            else { return nil }
            self.init(notWritten: sentences.map(\.printable))
        }
    }

    var json: JSONValue {
        switch self {
        case .users(let users): ["users": .array(users.processes.map(\.json)), "more": .bool(users.hasMore)]
        case .unwritten(let sentences): ["unwritten": .array(sentences.map { .string($0) })]
        }
    }
}

extension DiskUse.Process {
    /// The kernel gives a process's name 15 bytes.
    private static let longestName = 64

    fileprivate init?(_ json: JSONValue) {
        guard let id = json["process"]?.integer(as: Int32.self), id > 0, let name = json["name"]?.text,
            name.utf8.count <= Self.longestName, let isOwnDisk = json["own-disk"]?.truth
        else { return nil }
        self.init(id: id, name: name.printable, isOwnDisk: isOwnDisk)
    }

    fileprivate var json: JSONValue { ["process": JSONValue(id), "name": .string(name), "own-disk": .bool(isOwnDisk)] }
}
