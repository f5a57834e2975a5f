/// What the exit status of every subcommand means. Scripts rely on these numbers: they never change.
enum ExitStatus: Int32, CaseIterable {
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

    /// All of them, one per line, for the help text.
    static var table: String {
        allCases.map { status in
            let number = String(status.rawValue)
            return String(repeating: " ", count: 4 - number.count) + number + "  " + status.meaning
        }.joined(separator: "\n")
    }
}
