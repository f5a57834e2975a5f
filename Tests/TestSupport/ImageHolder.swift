import Foundation

/// Holds an image as a running QEMU would.
public final class ImageHolder {
    private let process = Process()
    private let input = Pipe()

    /// - Parameter options: of qemu-io, such as `-r` to hold it for reading only.
    /// - Throws: where QEMU does not get the image.
    public init(_ path: String, format: String = "qed", options: [String] = []) throws {
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["qemu-io", "-f", format] + options + [path]
        process.standardInput = input
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        // It answers, with a size in some kind of bytes, when it has the image.
        input.fileHandleForWriting.write(Data("length\n".utf8))
        var answer = Data()
        while !answer.contains(UInt8(ascii: "B")) {
            let data = output.fileHandleForReading.availableData
            if data.isEmpty {
                process.waitUntilExit()
                throw CommandFailure(
                    command: "qemu-io \(path)",
                    result: CommandResult(
                        status: process.terminationStatus, output: "", errors: "it could not be opened"))
            }
            answer += data
        }
    }

    public var processID: Int32 { process.processIdentifier }

    public func release() {
        input.fileHandleForWriting.closeFile()
        process.waitUntilExit()
    }
}
