import BlockStorage
import Glibc
import QEDChain
import QEDEngine
import Testing
import Ublk

@testable import DeviceServer

struct BlockChoiceTests {
    struct Row: CustomTestStringConvertible, Sendable {
        let wanted: Int?
        let size: UInt64
        let table: PartitionTable
        let direct: Int?
        let block: Int
        let isDirect: Bool
        var testDescription: String { "wanted \(wanted ?? 0), size \(size), \(table), direct \(direct ?? 0)" }
    }

    private static let whole: UInt64 = 64 << 20
    private static let odd = whole + 512

    private static func row(
        _ wanted: Int?, _ size: UInt64, _ table: PartitionTable, _ direct: Int?, _ block: Int, _ isDirect: Bool
    ) -> Row { Row(wanted: wanted, size: size, table: table, direct: direct, block: block, isDirect: isDirect) }

    static let rows = [
        // Nobody asks for anything: 512 everywhere, past the page cache where that takes them.
        row(nil, whole, .other, 512, 512, true), row(nil, whole, .other, 4096, 512, false),
        row(nil, whole, .other, 1024, 512, false), row(nil, whole, .other, nil, 512, false),
        row(nil, odd, .other, 512, 512, true), row(nil, odd, .other, 4096, 512, false),
        row(nil, whole, .unknown, 512, 512, true), row(nil, whole, .unknown, 4096, 512, false),
        row(nil, whole, .gpt(blockSizeBytes: 512), 4096, 512, false),
        row(nil, whole, .gpt(blockSizeBytes: 512), 512, 512, true),
        // The image does.
        row(nil, whole, .gpt(blockSizeBytes: 4096), 512, 4096, true),
        row(nil, whole, .gpt(blockSizeBytes: 4096), 4096, 4096, true),
        row(nil, whole, .gpt(blockSizeBytes: 4096), nil, 4096, false),
        row(nil, odd, .gpt(blockSizeBytes: 4096), 4096, 512, false),
        row(nil, odd, .gpt(blockSizeBytes: 4096), 512, 512, true),
        // The user does, whatever the image says.
        row(512, whole, .gpt(blockSizeBytes: 4096), 4096, 512, false),
        row(512, odd, .other, 4096, 512, false), row(512, whole, .other, 512, 512, true),
        row(4096, whole, .gpt(blockSizeBytes: 512), 4096, 4096, true), row(4096, whole, .other, 512, 4096, true),
        row(4096, whole, .other, 2048, 4096, true), row(4096, whole, .other, nil, 4096, false),
        row(4096, whole, .unknown, 65_536, 4096, false),
    ]

    @Test(arguments: rows)
    func choice(row: Row) throws {
        let choice = try BlockChoice(
            wantedBytes: row.wanted, imageSizeBytes: row.size, partitionTable: row.table, directBytes: row.direct)
        #expect(choice.blockSizeBytes == row.block)
        #expect(choice.isDirect == row.isDirect)
        #expect(row.size % UInt64(choice.blockSizeBytes) == 0)
        if choice.isDirect { #expect(choice.blockSizeBytes % (row.direct ?? .max) == 0) }
    }

    @Test func whoeverAsksForBlocksHasNoPartitionTableRead() throws {
        var reads = 0
        func table() -> PartitionTable {
            reads += 1
            return .other
        }
        for (wanted, expected) in [(512, 0), (4096, 0), (nil, 1)] {
            reads = 0
            _ = try BlockChoice(
                wantedBytes: wanted, imageSizeBytes: Self.whole, partitionTable: table(), directBytes: 512)
            #expect(reads == expected)
        }
    }

    @Test func blocksThatTheImageDoesNotConsistOf() {
        let error = #expect(throws: BlockSizeError.self) {
            try BlockChoice(
                wantedBytes: 4096, imageSizeBytes: Self.odd, partitionTable: .gpt(blockSizeBytes: 4096), directBytes: 4096)
        }
        #expect(error.map { "\($0)" }?.hasPrefix("its size, 67109376 bytes, is no multiple of the block size 4096") == true)
    }

    /// Whoever wants direct I/O is told how to get it, and only where that can be.
    @Test func reasons() throws {
        func reasons(_ size: UInt64, _ table: PartitionTable, _ direct: Int?) throws -> String {
            "\(try BlockChoice(wantedBytes: nil, imageSizeBytes: size, partitionTable: table, directBytes: direct))"
        }
        #expect(try reasons(Self.whole, .other, 4096).contains("so only with --block-size 4096"))
        #expect(try !reasons(Self.odd, .other, 4096).contains("--block-size"))
        #expect(try !reasons(Self.whole, .other, 8192).contains("--block-size"))
        #expect(try reasons(Self.whole, .other, nil).contains("its file system has no direct I/O"))
        #expect(try reasons(Self.whole, .gpt(blockSizeBytes: 4096), 512).contains("partition table was made for them"))
        #expect(try reasons(Self.odd, .gpt(blockSizeBytes: 4096), 512).contains("its size is no multiple of that"))
        #expect(try reasons(Self.whole, .unknown, 512).contains("was not read"))
    }

    /// Of any version, on whatever file system the image lay then.
    @Test(arguments: [(512, 512, true), (512, 4096, false), (4096, 512, true), (4096, 4096, true), (1024, 4096, false)])
    func devicesThatExistKeepTheirBlocks(block: Int, direct: Int, isDirect: Bool) {
        let choice = BlockChoice(ofDeviceWithBlocksOf: block, imageSizeBytes: Self.whole, directBytes: direct)
        #expect(choice.blockSizeBytes == block)
        #expect(choice.isDirect == isDirect)
    }

    /// A tmpfs, of which the kernel does not say what its direct I/O takes.
    @Test func sessionsFollowTheChoice() throws {
        let path = "/dev/shm/qed-ublk-blocks-\(ProcessIdentity.current?.id ?? 0).qed"
        _ = try ImageCreation(path: path, sizeBytes: Self.whole).create()
        defer { remove(path) }
        var configuration = ServerConfiguration(imagePath: path)
        configuration.isReadOnly = true
        for (wanted, block, isDirect) in [(nil, 512, false), (512, 512, false), (4096, 4096, true)] as [(Int?, Int, Bool)] {
            let files = try ImageFiles(configuration)
            let session = try ImageSession(files)
            try #require(session.chain[0].file.directAlignment != nil, "a tmpfs that opens files for direct I/O")
            let choice = try session.chooseBlocks(wantedBytes: wanted)
            #expect((choice.blockSizeBytes, choice.isDirect) == (block, isDirect))
            #expect(session.blocks == choice)
            #expect((session.chain[0].file.alignment == .none) == !isDirect)
            #expect(!files.takesPages && !files.takesPages(inBlocksOf: block))
        }
        for (shift, isDirect) in [(9, false), (12, true)] as [(UInt8, Bool)] {
            let session = try ImageSession(configuration)
            try session.keepBlocks(
                of: UblkParameters(
                    basic: UblkParameters.Basic(
                        attributes: [], logicalBlockShift: shift, maxSectors: 8, deviceSectors: Self.whole / 512)))
            #expect(session.blocks?.blockSizeBytes == 1 << Int(shift))
            #expect((session.chain[0].file.alignment == .none) == !isDirect)
        }
    }
}
