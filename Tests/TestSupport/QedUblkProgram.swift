import Foundation
import Glibc

/// The program under test, as it was built with these tests.
public enum QedUblkProgram {
    /// The directory this test program is in: both are build products.
    public static func path() throws -> String {
        let testProgram = try require(["readlink", "/proc/\(getpid())/exe"]).dropLast()
        return testProgram.prefix(through: testProgram.lastIndex(of: "/") ?? testProgram.startIndex) + "qed-ublk"
    }

    public static func run(_ arguments: String..., in directory: TemporaryDirectory) throws -> CommandResult {
        try TestSupport.run([try path()] + arguments, in: directory.path)
    }

    /// All that a run may take of memory: ordinary work fits into half of it.
    public static let addressSpaceBytes = 256 << 20

    /// Runs it with bounds, whatever an image makes of it: so much address space, a minute of processor time, and an
    /// end if it waits for ever. A run that goes beyond them ends with a signal.
    public static func runBounded(
        _ arguments: [String], in directory: TemporaryDirectory
    ) throws -> CommandResult {
        try TestSupport.run(
            [
                "SWIFT_BACKTRACE=enable=no", "timeout", "--signal=KILL", "120", "prlimit",
                "--as=\(addressSpaceBytes)", "--cpu=60", "--", try path(),
            ] + arguments, in: directory.path)
    }
}
