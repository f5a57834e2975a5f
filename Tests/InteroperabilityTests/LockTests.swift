import Foundation
import TestSupport
import Testing

/// Images that are open: by QEMU while this program is asked for them, and the other way round.
@Suite struct LockTests {
    let bench: Workbench

    init() throws {
        bench = try Workbench()
        try bench.create("base", mib, by: .ours)
        try bench.create("image", nil, over: ("base", "qed"), by: .ours)
        try bench.create("other", mib, by: .ours)
        try bench.play(["write -P 5 0 4k"], on: "base", by: .ours)
    }

    /// A command that only reads, with the status of an image in use.
    struct Reader: Sendable, CustomTestStringConvertible {
        var arguments: [String]
        var inUse: Int32 = 3
        /// What QEMU's does instead of reading the image alone.
        var opensBackingFiles = true

        var testDescription: String { arguments.joined(separator: " ") }
    }

    static let readers = [
        Reader(arguments: ["check", "image"], inUse: 1, opensBackingFiles: false),
        Reader(arguments: ["map", "image"]), Reader(arguments: ["measure", "image"]),
        Reader(arguments: ["compare", "image", "other"], inUse: 2),
        Reader(arguments: ["compare", "other", "image"], inUse: 2), Reader(arguments: ["convert", "image", "copy"]),
        Reader(arguments: ["io", "image", "read 0 4k"]), Reader(arguments: ["bench", "-c", "1", "image"]),
    ]

    static let writers = [
        ["io", "image", "write 0 4k"], ["resize", "image", "2M"], ["commit", "-d", "image"], ["flatten", "image"],
        ["rebase", "-u", "-b", "base", "-F", "qed", "image"], ["compact", "image"],
        ["convert", "-n", "-O", "qed", "other", "image"], ["bench", "-w", "-c", "1", "image"],
        ["create", "--force", "image", "1M"],
    ]

    private func shared(_ reader: Reader) -> [String] { [reader.arguments[0], "-U"] + reader.arguments.dropFirst() }

    @Test("QEMU writes it: reading needs -U", arguments: readers)
    func heldForWriting(_ reader: Reader) throws {
        let holder = try ImageHolder(bench.path("image"))
        defer { holder.release() }
        expectRefusal(
            try bench.ours(reader.arguments), reader.inUse,
            naming: "image: in use by qemu-io (process \(holder.processID))")
        #expect(try bench.directory.contents()["copy"] == nil)
        let result = try bench.ours(shared(reader))
        #expect(result.status == (reader.arguments[0] == "compare" ? 1 : 0), "\(result.errors)")
        // Nothing of this keeps QEMU from its image.
        #expect(try bench.ours("info", "image").status == 0)
    }

    @Test("QEMU reads it: so can we, and nothing can write", arguments: readers)
    func heldForReading(_ reader: Reader) throws {
        for options in [["-r"], ["-r", "-U"]] {
            let holder = try ImageHolder(bench.path("image"), options: options)
            defer { holder.release() }
            let result = try bench.ours(reader.arguments)
            #expect(result.status == (reader.arguments[0] == "compare" ? 1 : 0), "\(result.errors)")
            try? FileManager.default.removeItem(atPath: bench.path("copy"))
            let writer = try bench.ours("io", "image", "write 0 4k")
            if options == ["-r"] {
                expectRefusal(writer, 3, naming: "image: in use by qemu-io (process \(holder.processID))")
            } else {
                #expect(writer.status == 0)
            }
        }
    }

    @Test("QEMU writes it: so must not we", arguments: writers)
    func writersAreRefused(_ arguments: [String]) throws {
        let holder = try ImageHolder(bench.path("image"))
        defer { holder.release() }
        let before = try bench.directory.contents()
        expectRefusal(try bench.ours(arguments), 3, naming: "image: in use by qemu-io (process \(holder.processID))")
        #expect(try bench.directory.contents() == before)
    }

    @Test("QEMU writes a file of its chain", arguments: readers.filter(\.opensBackingFiles))
    func heldBackingFile(_ reader: Reader) throws {
        let holder = try ImageHolder(bench.path("base"))
        defer { holder.release() }
        expectRefusal(
            try bench.ours(reader.arguments), reader.inUse,
            naming: "base: in use by qemu-io (process \(holder.processID))")
        #expect(try bench.ours(shared(reader)).status != reader.inUse)
    }

    @Test("-U goes with reading only")
    func writingIsNotShared() throws {
        for arguments in [
            ["io", "-U", "image", "write 0 4k"], ["bench", "-U", "-w", "-c", "1", "image"],
            ["check", "-U", "-r", "all", "image"],
        ] {
            expectRefusal(try bench.ours(arguments), 64, naming: "force-share")
        }
    }

    /// A column of the table of QEMU's commands beside our locks.
    struct Column: Sendable, CustomTestStringConvertible {
        var command: [String]
        var whileWeWrite: Bool
        var whileWeRead: Bool

        var testDescription: String { command.joined(separator: " ") }
    }

    static let columns = [
        Column(
            command: ["qemu-io", "-f", "qed", "image", "-c", "write 0 4k"], whileWeWrite: false, whileWeRead: false),
        Column(
            command: ["qemu-io", "-r", "-f", "qed", "image", "-c", "read 0 4k"], whileWeWrite: false,
            whileWeRead: true),
        Column(
            command: ["qemu-io", "-r", "-U", "-f", "qed", "image", "-c", "read 0 4k"], whileWeWrite: true,
            whileWeRead: true),
        Column(command: ["qemu-img", "info", "image"], whileWeWrite: false, whileWeRead: true),
        Column(command: ["qemu-img", "info", "-U", "image"], whileWeWrite: true, whileWeRead: true),
        Column(command: ["qemu-img", "check", "-f", "qed", "image"], whileWeWrite: false, whileWeRead: true),
        Column(command: ["qemu-img", "check", "-U", "-f", "qed", "image"], whileWeWrite: true, whileWeRead: true),
        Column(command: ["qemu-img", "map", "-f", "qed", "image"], whileWeWrite: false, whileWeRead: true),
        Column(
            command: ["qemu-img", "convert", "-f", "qed", "-O", "raw", "image", "x"], whileWeWrite: false,
            whileWeRead: true),
        Column(
            command: ["qemu-img", "convert", "-U", "-f", "qed", "-O", "raw", "image", "x"], whileWeWrite: true,
            whileWeRead: true),
        Column(
            command: ["qemu-img", "resize", "-q", "-f", "qed", "image", "2M"], whileWeWrite: false, whileWeRead: false),
        Column(
            command: ["qemu-img", "create", "-q", "-f", "qed", "image", "1M"], whileWeWrite: false, whileWeRead: false),
        // The base is only read, whatever is done with the overlay.
        Column(
            command: ["qemu-io", "-r", "-f", "qed", "base", "-c", "read 0 4k"], whileWeWrite: true, whileWeRead: true),
        Column(command: ["qemu-io", "-f", "qed", "base", "-c", "write 0 4k"], whileWeWrite: false, whileWeRead: false),
    ]

    @Test("what QEMU may do with an image that we have open", arguments: columns)
    func weHoldIt(_ column: Column) throws {
        // All of it is allocated: how far the writer has come before it is stopped leaves no trace that a check would report.
        try bench.play(["write -P 6 0 \(mib)"], on: "image", by: .ours)
        for (isWriting, isAllowed) in [(true, column.whileWeWrite), (false, column.whileWeRead)] {
            let holder = try ProgramHolder(bench.path("image"), writing: isWriting, fileCount: 2)
            let result = try TestSupport.run(column.command, in: bench.directory.path)
            holder.release()
            #expect((result.status == 0) == isAllowed, "writing \(isWriting): \(result.errors)")
            if !isAllowed { #expect(result.errors.contains("lock"), "\(result.errors)") }
        }
    }

    @Test("we name this program too")
    func ownHolder() throws {
        let holder = try ProgramHolder(bench.path("image"), writing: true, fileCount: 2)
        defer { holder.release() }
        expectRefusal(
            try bench.ours("io", "image", "read 0 4k"), 3,
            naming: "image: in use by qed-ublk (process \(holder.processID))")
        // A base that is read can be read by others.
        #expect(try bench.ours("io", "base", "read -P 5 0 4k").status == 0)
        expectRefusal(
            try bench.ours("io", "base", "write 0 4k"), 3,
            naming: "base: in use by qed-ublk (process \(holder.processID))")
    }
}
