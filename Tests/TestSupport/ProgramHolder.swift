import Foundation

/// This program with an image open, stopped in the middle of its work: what it has locked stays locked.
public final class ProgramHolder {
    private let process = Process()

    /// - Parameter fileCount: of the image and those behind it.
    /// - Throws: where it does not get the image.
    public init(_ path: String, writing: Bool, fileCount: Int = 1) throws {
        process.executableURL = URL(fileURLWithPath: try QedUblkProgram.path())
        process.arguments = ["bench"] + (writing ? ["-w"] : []) + ["-c", "2000000000", path]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        while lockedFileCount < fileCount {
            guard process.isRunning else {
                throw CommandFailure(
                    command: "qed-ublk bench \(path)",
                    result: CommandResult(
                        status: process.terminationStatus, output: "", errors: "it could not be opened"))
            }
            usleep(1000)
        }
        _ = process.suspend()
    }

    public var processID: Int32 { process.processIdentifier }

    public func release() {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Files whose last byte to be locked is.
    private var lockedFileCount: Int {
        let directory = "/proc/\(process.processIdentifier)/fdinfo"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return names.count { name in
            (try? String(contentsOfFile: "\(directory)/\(name)", encoding: .utf8))?.contains(" 203 203") ?? false
        }
    }
}
