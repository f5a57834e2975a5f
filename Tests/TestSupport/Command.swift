import Foundation

/// A program that ran to its end.
public struct CommandResult: Sendable {
    /// Its exit status, or the negative number of the signal that killed it.
    public let status: Int32
    public let output: String
    public let errors: String
}

/// A program that did not succeed where a test cannot go on without it.
public struct CommandFailure: Error, CustomStringConvertible {
    public let command: String
    public let result: CommandResult

    public init(command: String, result: CommandResult) {
        self.command = command
        self.result = result
    }

    public var description: String { "\(command) ended with \(result.status): \(result.output)\(result.errors)" }
}

/// Runs a program, found along PATH, with nothing to read, and waits for it. If there is no such program, the status is
/// 127.
public func run(_ command: [String], in directory: String? = nil) throws -> CommandResult {
    let scratch = try TemporaryDirectory()
    let outputPath = scratch.path("output")
    let errorsPath = scratch.path("errors")
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = command
    if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = try newFile(outputPath)
    process.standardError = try newFile(errorsPath)
    try process.run()
    process.waitUntilExit()
    return CommandResult(
        status: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
        output: String(decoding: try readFile(outputPath), as: UTF8.self),
        errors: String(decoding: try readFile(errorsPath), as: UTF8.self))
}

/// Runs a program that has to succeed, and returns what it wrote to standard output.
@discardableResult
public func require(_ command: [String], in directory: String? = nil) throws -> String {
    let result = try run(command, in: directory)
    guard result.status == 0 else { throw CommandFailure(command: command.joined(separator: " "), result: result) }
    return result.output
}

/// The JSON object that a program writes to standard output.
public func requireJSON(_ command: [String], in directory: String? = nil) throws -> [String: Any] {
    let output = try require(command, in: directory)
    guard let object = try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any] else {
        throw CommandFailure(
            command: command.joined(separator: " "), result: CommandResult(status: 0, output: output, errors: ""))
    }
    return object
}

private func newFile(_ path: String) throws -> FileHandle {
    try writeFile(path, [])
    return try FileHandle(forWritingTo: URL(fileURLWithPath: path))
}
