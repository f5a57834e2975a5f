import CSupport
import Glibc
import IOURing
import Platform
import SystemPackage

/// One line on a terminal that says how far a long command is.
enum ProgressBar {
    /// - Returns: what to call with the share that is done, any number of times; nil if standard error is no terminal.
    static func make() -> (@Sendable (Double) -> Void)? {
        guard isatty(STDERR_FILENO) == 1 else { return nil }
        let shown = Lock(-1)
        return { share in
            let percent = Int(max(0, min(share, 1)) * 100)
            let isNew = shown.withLock { shown in
                defer { shown = percent }
                return shown != percent
            }
            if isNew { draw(percent) }
        }
    }

    private static func draw(_ percent: Int) {
        let width = 40
        let filled = percent * width / 100
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
        let number = String(percent)
        let padding = String(repeating: " ", count: 3 - number.count)
        // Nothing depends on its being seen.
        _ = try? FileDescriptor.standardError.writeAll(
            "\r[\(bar)] \(padding)\(number)%\(percent == 100 ? "\n" : "")".utf8)
    }
}
