import Glibc
import TestSupport

/// The program under test, as it was built with these tests.
enum QedUblkProgram {
    /// The directory this test program is in: both are build products.
    static func path() throws -> String {
        let testProgram = try require(["readlink", "/proc/\(getpid())/exe"]).dropLast()
        return testProgram.prefix(through: testProgram.lastIndex(of: "/") ?? testProgram.startIndex) + "qed-ublk"
    }

    static func run(_ arguments: String..., in directory: TemporaryDirectory) throws -> CommandResult {
        try TestSupport.run([try path()] + arguments, in: directory.path)
    }
}
