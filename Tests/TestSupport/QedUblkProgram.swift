import Foundation

/// The program under test, as it was built with these tests.
public enum QedUblkProgram {
    /// The directory this test program is in: both are build products.
    public static func path() throws -> String {
        let testProgram = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return testProgram.prefix(through: testProgram.lastIndex(of: "/") ?? testProgram.startIndex) + "qed-ublk"
    }

    public static func run(_ arguments: String..., in directory: TemporaryDirectory) throws -> CommandResult {
        try TestSupport.run([try path()] + arguments, in: directory.path)
    }
}
