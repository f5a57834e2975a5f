import Foundation
import TestSupport
import Testing

/// A directory with images in it, and both programs to work on them. Names are those of files in the directory.
struct Workbench {
    let directory: TemporaryDirectory
    private let program: String

    init() throws {
        directory = try TemporaryDirectory()
        program = try QedUblkProgram.path()
    }

    func path(_ name: String) -> String { directory.path(name) }

    /// Runs `qed-ublk`.
    func ours(_ arguments: String...) throws -> CommandResult { try ours(arguments) }
    func ours(_ arguments: [String]) throws -> CommandResult { try run([program] + arguments, in: directory.path) }

    /// Runs `qemu-img`.
    func qemuImage(_ arguments: String...) throws -> CommandResult { try qemuImage(arguments) }
    func qemuImage(_ arguments: [String]) throws -> CommandResult {
        try run(["qemu-img"] + arguments, in: directory.path)
    }

    /// Runs a command that both programs have in the same words.
    func image(_ party: Party, _ arguments: String...) throws -> CommandResult { try image(party, arguments) }
    func image(_ party: Party, _ arguments: [String]) throws -> CommandResult {
        party == .ours ? try ours(arguments) : try qemuImage(arguments)
    }

    /// The same where the test cannot go on unless it succeeds.
    func require(_ party: Party, _ arguments: String...) throws { try require(party, arguments) }
    func require(_ party: Party, _ arguments: [String]) throws {
        let result = try image(party, arguments)
        guard result.status == 0 else { throw CommandFailure(command: "\(party) \(arguments)", result: result) }
    }

    // MARK: Images

    /// Makes an image, or an overlay over a file of that name and format.
    func create(
        _ name: String, _ sizeBytes: UInt64? = nil, _ geometry: Geometry = .standard,
        over backing: (name: String, format: String)? = nil, by party: Party
    ) throws {
        let size = sizeBytes.map { ["\($0)"] } ?? []
        switch party {
        case .ours:
            let overlay = backing.map { ["--backing", $0.name, "--backing-format", $0.format] } ?? []
            try require(.ours, ["create", "-o", geometry.options] + overlay + [name] + size)
        case .qemu:
            let overlay = backing.map { ["-b", $0.name, "-F", $0.format] } ?? []
            try require(.qemu, ["create", "-q", "-f", "qed", "-o", geometry.options] + overlay + [name] + size)
        }
    }

    /// Makes an empty disk, an image or a raw file.
    func create(_ name: String, _ sizeBytes: UInt64, _ geometry: Geometry, as format: String, by party: Party) throws {
        guard format == "raw" else { return try create(name, sizeBytes, geometry, by: party) }
        try createRaw(name, sizeBytes)
    }

    /// Makes an empty file of that size: a raw disk of zeros.
    func createRaw(_ name: String, _ sizeBytes: UInt64) throws {
        try writeFile(path(name), [])
        try FileHandle(forUpdating: URL(fileURLWithPath: path(name))).truncate(atOffset: sizeBytes)
    }

    func fileSizeBytes(_ name: String) throws -> UInt64 {
        try FileManager.default.attributesOfItem(atPath: path(name))[.size] as? UInt64 ?? 0
    }

    // MARK: Reading and writing

    /// Performs commands on a disk, each after the other: those of qemu-io, which `qed-ublk io` has too.
    func attempt(_ commands: [String], on name: String, format: String = "qed", by party: Party) throws -> CommandResult {
        switch party {
        case .ours: try ours(["io", "-f", format, name] + commands)
        // No sync after each write: nothing here loses power.
        case .qemu:
            try run(
                ["qemu-io", "-t", "unsafe", "-f", format, name] + commands.flatMap { ["-c", $0] }, in: directory.path)
        }
    }

    func play(_ commands: [String], on name: String, format: String = "qed", by party: Party) throws {
        let result = try attempt(commands, on: name, format: format, by: party)
        guard result.status == 0 else {
            throw CommandFailure(command: "\(party) \(commands.joined(separator: "; "))", result: result)
        }
    }

    /// Both programs find what is expected: the commands are `read -P`.
    func expectReads(
        _ commands: [String], of name: String, format: String = "qed", sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        for party in Party.allCases {
            let result = try attempt(commands, on: name, format: format, by: party)
            #expect(
                result.status == 0, "\(party) reads \(name): \(result.output)\(result.errors)",
                sourceLocation: sourceLocation)
        }
    }

    // MARK: Verdicts

    /// Both checks find nothing wrong, not even a leak.
    func expectSound(_ names: String..., sourceLocation: SourceLocation = #_sourceLocation) throws {
        for name in names {
            let ours = try ours("check", name)
            #expect(ours.status == 0, "ours of \(name): \(ours.output)\(ours.errors)", sourceLocation: sourceLocation)
            let qemu = try qemuImage("check", "-f", "qed", "--output=json", name)
            let verdict = try parsed(qemu)
            #expect(verdict["corruptions"] == nil, "QEMU of \(name): \(qemu.output)", sourceLocation: sourceLocation)
            #expect(
                verdict["leaks"] as? UInt64 ?? 0 == (try falseLeaks(name)), "QEMU of \(name): \(qemu.output)",
                sourceLocation: sourceLocation)
        }
    }

    /// Leaks that QEMU counts though there are none: one for each (cluster size - 1) clusters of the file.
    func falseLeaks(_ name: String) throws -> UInt64 {
        let editor = try ImageEditor(path(name))
        return try editor.fileSizeBytes / editor.clusterSizeBytes / (editor.clusterSizeBytes - 1)
    }

    /// Both comparisons find the same contents.
    func expectSame(
        _ first: String, _ second: String, formats: (String, String) = ("qed", "qed"),
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        for party in Party.allCases {
            let result = try image(party, "compare", "-f", formats.0, "-F", formats.1, first, second)
            #expect(
                result.status == 0, "\(party): \(first) \(second): \(result.output)\(result.errors)",
                sourceLocation: sourceLocation)
        }
    }

    /// The JSON object that a command has printed.
    func parsed(_ result: CommandResult) throws -> [String: Any] {
        guard let object = try? JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any] else {
            throw CommandFailure(command: "a command with JSON output", result: result)
        }
        return object
    }
}

/// Text of `qed-ublk` that refuses: one sentence on standard error, nothing on standard output.
func expectRefusal(
    _ result: CommandResult, _ status: Int32, naming text: String, sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(result.status == status, "\(result.output)\(result.errors)", sourceLocation: sourceLocation)
    #expect(result.output == "", sourceLocation: sourceLocation)
    #expect(
        result.errors.hasPrefix("qed-ublk: ") && result.errors.split(separator: "\n").count == 1
            && result.errors.contains(text), "\(result.errors)", sourceLocation: sourceLocation)
}
