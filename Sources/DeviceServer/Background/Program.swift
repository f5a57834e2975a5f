import Glibc
import Platform

/// This program's file.
enum Program {
    /// Where the program that runs was started from, if there is one now; else the one that runs, which has no name any more.
    static var path: String {
        guard let target = ProcessFiles.target(ofLink: "/proc/self/exe") else { return "/proc/self/exe" }
        return path(ofRunning: target)
    }

    /// - Parameter target: what the kernel calls the running program: its path, and " (deleted)" when another file, or none,
    ///   has that by now.
    static func path(ofRunning target: String) -> String {
        let mark = " (deleted)"
        let name = target.hasSuffix(mark) ? String(target.dropLast(mark.count)) : target
        return access(name, X_OK) == 0 ? name : "/proc/self/exe"
    }
}

/// Lends the body arguments for a program, as execve(2) wants them.
func withArgumentVector<Result>(
    _ arguments: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    // SAFETY: the copies live until the body has returned.
    let copies: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for copy in copies { free(copy) } }
    return copies.withUnsafeBufferPointer { body($0.baseAddress.unsafelyUnwrapped) }
}
