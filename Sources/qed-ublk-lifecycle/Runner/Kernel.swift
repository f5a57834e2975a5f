import BlockStorage
import Glibc
import Platform

/// What the kernel and /proc say of devices and their servers.
enum Kernel {
    struct Process: Equatable {
        var id: Int
        var parent: Int
        /// Of the program's hidden commands: serve or supervise.
        var role: String
        /// The devices whose character device it has open.
        var devices: [Int]
    }

    /// Processes of the program that serve, or supervise.
    static func servers() -> [Process] {
        var found: [Process] = []
        for name in names(in: "/proc") {
            guard let id = Int(name), let process = server(id) else { continue }
            found.append(process)
        }
        return found
    }

    private static func server(_ id: Int) -> Process? {
        // A server is called exe until it has given itself its name.
        guard let name = SmallFile.text("/proc/\(id)/comm"), name == "qed-ublk\n" || name == "exe\n",
            let line = SmallFile.bytes("/proc/\(id)/cmdline")
        else { return nil }
        let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        guard words.count > 1, ["serve", "supervise"].contains(words[1]) else { return nil }
        // After the name, which may hold blanks and brackets: state, parent.
        let state = SmallFile.text("/proc/\(id)/stat")?.split(separator: ")").last?.split(separator: " ") ?? []
        guard state.count > 1, state[0] != "Z" else { return nil }
        let devices = names(in: "/proc/\(id)/fd").compactMap { ProcessFiles.target(ofLink: "/proc/\(id)/fd/\($0)") }.compactMap {
            $0.hasPrefix("/dev/ublkc") ? Int($0.dropFirst(10)) : nil
        }
        return Process(id: id, parent: Int(state[1]) ?? 0, role: words[1], devices: devices)
    }

    static func devices() -> [Int] {
        names(in: "/sys/class/ublk-char").compactMap { $0.hasPrefix("ublkc") ? Int($0.dropFirst(5)) : nil }
    }

    static func hasDisk(_ id: Int) -> Bool { access("/sys/block/ublkb\(id)", F_OK) == 0 }

    static func sizeMiB(_ id: Int) -> Int? {
        SmallFile.text("/sys/block/ublkb\(id)/size").flatMap { Int($0.dropLast()) }.map { $0 >> 11 }
    }

    static func isReadOnly(_ id: Int) -> Bool? { SmallFile.text("/sys/block/ublkb\(id)/ro").map { $0 == "1\n" } }

    static func isThere(_ process: Int) -> Bool {
        guard let state = SmallFile.text("/proc/\(process)/stat")?.split(separator: ")").last else { return false }
        // Nobody may have waited for it.
        return !state.hasPrefix(" Z") && !state.hasPrefix(" X")
    }

    /// What each process of the program is waiting for, for people.
    static func explanation() -> String {
        var text = ""
        for process in servers() {
            text += "  process \(process.id) (\(process.role), devices \(process.devices)):\n"
            for thread in names(in: "/proc/\(process.id)/task") {
                let stack = SmallFile.text("/proc/\(process.id)/task/\(thread)/stack") ?? ""
                let top = stack.split(separator: "\n").prefix(6).map { $0.split(separator: " ").last ?? "" }
                text += "    \(thread): \(top.joined(separator: " "))\n"
            }
        }
        return text
    }
}
