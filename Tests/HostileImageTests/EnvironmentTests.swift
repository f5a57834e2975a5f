import BlockStorage
import Foundation
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import TestSupport
import Testing

/// Rows 78 and 81 to 85: not the image's bytes, but what is around them.
@Suite struct EnvironmentTests {
    let directory: TemporaryDirectory
    var path: String { directory.path("image.qed") }

    init() throws { directory = try TemporaryDirectory() }

    private func ours(_ arguments: String...) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    // MARK: Row 78

    private func openOverlay(isRaw: Bool) throws -> LocalEngine {
        var image = ImageBuilder.empty(clusterSize: 65536, tableSize: 4, imageSize: 3 << 30)
        image.setBackingFile("base", isRaw: isRaw)
        try image.write(to: path)
        if isRaw {
            try writeFile(directory.path("base"), Array(repeating: 7, count: 1 << 20))
        } else {
            try ImageBuilder.specimen().write(to: directory.path("base"))
        }
        return try LocalEngine(path: path)
    }

    private func perform(
        _ engine: LocalEngine, _ operation: QEDEngine.BlockOperation, _ offset: UInt64, _ count: Int
    ) -> Int32 {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 9, count: count)
        return engine.perform([
            BlockRequest(operation, deviceOffset: offset, byteCount: UInt64(count), buffer: buffer)
        ])[0]
    }

    @Test("row 78: a base in use cannot be written by QEMU", arguments: [true, false])
    func baseIsLocked(isRaw: Bool) throws {
        let engine = try openOverlay(isRaw: isRaw)
        let result = try run(
            ["qemu-img", "resize", "-f", isRaw ? "raw" : "qed", directory.path("base"), "4G"])
        #expect(result.status == 1 && result.errors.contains("lock"))
        try engine.close()
    }

    /// A program that ignores locks. What is gone is an error, for reading and for what is copied: never zeros.
    @Test("row 78: a base that is cut while it is in use", arguments: [true, false])
    func baseIsCut(isRaw: Bool) throws {
        let engine = try openOverlay(isRaw: isRaw)
        let offset: UInt64 = isRaw ? 512 << 10 : 1 << 30
        #expect(perform(engine, .read, offset, 4096) == 0)
        try require(["truncate", "-s", isRaw ? "100000" : "655360", directory.path("base")])
        #expect(perform(engine, .read, offset, 4096) == -Errno.ioError.rawValue)
        #expect(perform(engine, .write, offset + 4096, 4096) == -Errno.ioError.rawValue)
        #expect(perform(engine, .read, offset + 4096, 4096) == -Errno.ioError.rawValue)
        // The rest goes on.
        #expect(perform(engine, .read, 0, 4096) == 0)
        #expect(perform(engine, .write, 2 << 30, 4096) == 0)
        try engine.close()
        #expect(try QEMUVerdict(of: path).corruptions == 0)
    }

    // MARK: Rows 81 to 84

    @Test("row 81: an image is a plain file", arguments: ["/dev/null", "/dev/zero", "/dev/full", "/"])
    func notAFile(path: String) throws {
        for command in [["info"], ["io", "read 0 4k"], ["io", "write 0 4k"], ["map"], ["compact"]] {
            let arguments = [command[0], path] + command.dropFirst()
            let result = try QedUblkProgram.runBounded(arguments, in: directory)
            #expect(result.status == (path == "/" ? 64 : 2))
            #expect(result.errors.split(separator: "\n").count == 1)
        }
    }

    /// Root may write what is read-only, so somebody else does it.
    @Test("row 82: a file that may only be read")
    func readOnlyFile() throws {
        try ImageBuilder.specimen().write(to: path)
        try require(["chmod", "444", path])
        try require(["chmod", "755", directory.path])
        try require(["install", "-m", "755", try QedUblkProgram.path(), directory.path("program")])
        let before = try readFile(path)
        let sandbox = getuid() == 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] : []
        let program = sandbox + [directory.path("program")]
        expectSuccess(try run(program + ["io", "image.qed", "read -P 1 0 64k"], in: directory.path))
        expectSuccess(try run(program + ["check", "-q", "image.qed"], in: directory.path))
        for command in [["io", "image.qed", "write 0 4k"], ["resize", "image.qed", "4G"]] {
            expectRefusal(try run(program + command, in: directory.path), 5, "or open it read-only")
        }
        #expect(try readFile(path) == before)
    }

    @Test("row 83: an image that QEMU has", arguments: [["info", "image.qed"], ["map", "-U", "image.qed"]])
    func usedByQEMU(harmless: [String]) throws {
        try ImageBuilder.specimen().write(to: path)
        let engine = try LocalEngine(path: path)
        // Ours keeps QEMU out; that QEMU keeps us out every command shows in CommandContractTests.
        let result = try run(["qemu-io", "-f", "qed", path, "-c", "read 0 4k"])
        #expect(result.status == 1 && result.errors.contains("lock"))
        expectRefusal(try ours("io", "image.qed", "write 0 4k"), 3, "in use by ")
        expectRefusal(try ours("io", "image.qed", "read 0 4k"), 3, "in use by ")
        expectSuccess(try QedUblkProgram.runBounded(harmless, in: directory))
        try engine.close()
    }

    @Test(
        "row 84: requests past the end of the device",
        arguments: [
            (3 << 30, 512), ((3 << 30) - 512, 1024), (.max - 511, 512), (.max - 4095, 8192), (1 << 63, 4096),
            (100, 512),
            (0, 100),
        ] as [(UInt64, Int)])
    func pastTheEnd(offset: UInt64, count: Int) throws {
        try ImageBuilder.specimen().write(to: path)
        let engine = try LocalEngine(path: path)
        for operation in [QEDEngine.BlockOperation.read, .write, .discard, .writeZeroes] {
            #expect(perform(engine, operation, offset, count) == -Errno.invalidArgument.rawValue)
        }
        #expect(perform(engine, .read, (3 << 30) - 512, 512) == 0)
        try engine.close()
        #expect(try QEMUVerdict(of: path).corruptions == 0)
    }

    // MARK: Row 85

    /// A file system that is full at some point, here: a file that may not grow past a limit. What was written before
    /// is there, the rest is an error, and the image is sound. Errors at every single step are the simulation's work
    /// (`FaultLoop`).
    @Test("row 85: no more space", arguments: Array(stride(from: 704, through: 1600, by: 64)))
    func noSpace(limitKiB: Int) throws {
        try ImageBuilder.specimen().write(to: path)
        let writes = (0..<12).map { "write -P \($0 + 1) \(100 + $0 * 10)M 64k" }
        // dash counts in blocks of 512 bytes.
        let result = try run(
            [
                "sh", "-c", "trap '' XFSZ; ulimit -f \(limitKiB * 2); exec \"$@\"", "sh", try QedUblkProgram.path(),
                "io",
                "image.qed",
            ] + writes, in: directory.path)
        #expect(result.status == (limitKiB >= 704 + 12 * 64 ? result.status : 1))
        #expect(result.errors.isEmpty == (result.status == 0))
        let done = result.output.split(separator: "\n").count
        #expect(try ours("check", "-q", "image.qed").status != 2)
        #expect(try QEMUVerdict(of: path).corruptions == 0)
        // Whatever was said to be written before the error is there, and so is what was there before.
        let reads = (0..<done).map { "read -P \($0 + 1) \(100 + $0 * 10)M 64k" }
        expectSuccess(
            try run([try QedUblkProgram.path(), "io", "image.qed", "read -P 1 0 64k"] + reads, in: directory.path))
    }
}
