import BlockStorage
import CSupport
import Glibc
import Platform

/// A program that was started, and what it says.
struct Subprocess {
    enum End: Equatable {
        case exit(Int32)
        case signal(Int32)
        /// It was given up; it may hang still.
        case late
    }

    let process: Int32
    private let outputPath: String

    /// - Parameter directory: where it starts.
    init(_ arguments: [String], directory: String = "/") throws(Breach) {
        outputPath = "/tmp/lifecycle-\(getpid())-\(Subprocess.nextNumber)"
        Subprocess.nextNumber += 1
        // The directory is changed in the child only, which may hang in it.
        let words = ["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", directory] + arguments
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, outputPath + ".errors", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        // SAFETY: the copies live until the program has been started.
        let copies: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for copy in copies { free(copy) } }
        var process: Int32 = 0
        let result = posix_spawn(&process, "/bin/sh", &actions, nil, copies, environ)
        guard result == 0 else { throw Breach("cannot start \(arguments): errno \(result)") }
        self.process = process
    }

    // SAFETY: only the player's thread starts programs.
    nonisolated(unsafe) private static var nextNumber = 0

    /// Waits until it ends, or the time is over.
    func wait(seconds: Double) -> End {
        let end = ContinuousClock.now + .seconds(seconds)
        while true {
            var status: Int32 = 0
            if waitpid(process, &status, WNOHANG) == process {
                return status & 0x7f == 0 ? .exit(status >> 8 & 0xff) : .signal(status & 0x7f)
            }
            guard ContinuousClock.now < end else { return .late }
            cs_sleep_milliseconds(1)
        }
    }

    /// What it has said on standard output and standard error; afterwards that is forgotten.
    func takeOutput() -> (output: String, errors: String) {
        defer {
            unlink(outputPath)
            unlink(outputPath + ".errors")
        }
        return (SmallFile.text(outputPath) ?? "", SmallFile.text(outputPath + ".errors") ?? "")
    }
}

/// Files of which all is read.
enum SmallFile {
    static func bytes(_ path: String, limit: Int = 1 << 20) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var content: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while content.count < limit {
            let count = Glibc.read(descriptor, &part, part.count)
            guard count > 0 else { break }
            content += part.prefix(count)
        }
        return content
    }

    static func text(_ path: String) -> String? { bytes(path).map { String(decoding: $0, as: UTF8.self) } }
}

/// Names in a directory, sorted; none where there is no such directory.
func names(in directory: String) -> [String] {
    ProcessFiles.names(in: directory).filter { $0 != "." && $0 != ".." }.sorted()
}
