/// What the exit status of every subcommand means. Scripts rely on these numbers: they never change.
enum ExitStatus: Int32, ExitStatusTable {
    case success = 0
    case failure = 1
    case unusableImage = 2
    case busy = 3
    case notFound = 4
    case noPermission = 5
    case noUblk = 6
    case left = 7
    case usage = 64

    var meaning: String {
        switch self {
        case .success: "done"
        case .failure: "failed: an I/O error or an error of the kernel"
        case .unusableImage: "not a usable image: not QED, damaged, or unsupported features"
        case .busy: "image or device in use, or file already exists"
        case .notFound: "file, backing file or device not found"
        case .noPermission: "no permission"
        case .noUblk: "this kernel has no ublk"
        case .left: "the server has ended, and its device waits for the next one"
        case .usage: "wrong usage"
        }
    }

    /// What a command that works on files says of the statuses that it has.
    private var meaningForFiles: String? {
        switch self {
        case .failure: "an I/O error"
        case .unusableImage: "not a usable image, or a damaged one"
        case .busy: "in use by another program"
        case .notFound: "file or backing file not found"
        case .noUblk, .left: nil
        case .success, .noPermission, .usage: meaning
        }
    }

    /// The statuses of a command that works on files, and has nothing to do with devices.
    /// - Parameters:
    ///   - special: what is said in other words, because they mean something more, or less, for it.
    ///   - without: those that it never has.
    static func tableOfTool(_ special: [ExitStatus: String] = [:], without: Set<ExitStatus> = []) -> String {
        lines(
            allCases.compactMap { status in
                guard !without.contains(status), let meaning = special[status] ?? status.meaningForFiles else { return nil }
                return (status.rawValue, meaning)
            })
    }
}

/// What `check` ends with: the statuses of 'qemu-img check'. What cannot be checked has one, whatever the reason.
enum CheckStatus: Int32, ExitStatusTable {
    case sound = 0
    case unchecked = 1
    case corrupt = 2
    case leaks = 3
    case usage = 64

    var meaning: String {
        switch self {
        case .sound: "no errors"
        case .unchecked: "could not check, or not all tables could be read"
        case .corrupt: "corruption was found, or remains"
        case .leaks: "leaked clusters, and nothing worse"
        case .usage: "wrong usage"
        }
    }
}

/// What `compare` ends with: the statuses of 'qemu-img compare', but for wrong usage. Errors of any kind have one, since 1 says
/// that the disks differ.
enum ComparisonStatus: Int32, ExitStatusTable {
    case identical = 0
    case different = 1
    case notCompared = 2
    case usage = 64

    var meaning: String {
        switch self {
        case .identical: "identical"
        case .different: "different"
        case .notCompared: "could not be compared: a file is missing, in use, not usable, or cannot be read"
        case .usage: "wrong usage"
        }
    }
}

/// Exit statuses and what they mean, for the help text.
protocol ExitStatusTable: CaseIterable, RawRepresentable<Int32> {
    var meaning: String { get }
}

extension ExitStatusTable {
    /// All of them, one per line.
    static var table: String { lines(allCases.map { ($0.rawValue, $0.meaning) }) }

    fileprivate static func lines(_ rows: [(status: Int32, meaning: String)]) -> String {
        rows.map { row in
            let number = String(row.status)
            return String(repeating: " ", count: 4 - number.count) + number + "  " + row.meaning
        }.joined(separator: "\n")
    }
}
