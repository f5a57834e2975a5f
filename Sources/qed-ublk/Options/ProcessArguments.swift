import CProgramStart

/// What this process was started with. Swift's `CommandLine` has it from /proc, and nothing where that is not mounted.
enum ProcessArguments {
    /// The program's name first. Bytes that are not UTF-8 have become U+FFFD.
    static var all: [String] {
        (0..<cs_argument_count()).compactMap { cs_argument($0).map { String(cString: $0) } }
    }
}
