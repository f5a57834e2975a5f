import QEDFormat
import Simulation
import TestSupport
import Testing

/// Headers that are odd or made to hurt, as far as the parser alone shows it. What the program makes of each kind is in
/// `HostileImageTests`.
@Suite struct HostileHeaderTests {
    // MARK: Geometry

    @Test func tablesOfOneClusterAreReadable() throws {
        #expect(try HeaderBuilder { $0.tableSize = 1 }.parsed().geometry.qemuLimitation == .tablesOfOneCluster)
    }

    @Test("maxima that wrap at 2^64 are computed in full", arguments: [(22, 2), (23, 1), (24, 0)])
    func maximumBeyond64Bits(clusterShift: Int, tableShift: Int) throws {
        var builder = HeaderBuilder {
            $0.clusterSize = 1 << clusterShift
            $0.tableSize = 1 << tableShift
            $0.l1TableOffset = 1 << clusterShift
            $0.fileSizeBytes = 1 << 40
        }
        for size: UInt64 in [512, 1 << 40, 1 << 62, (1 << 63) - (1 << 30)] {
            builder.imageSize = size
            #expect(try builder.parsed().imageSizeBytes == size)
        }
    }

    // MARK: Image size

    @Test("sizes that are fine", arguments: [0, 512, 65536 + 512, 1 << 46] as [UInt64])
    func imageSizeFine(bytes: UInt64) throws {
        #expect(try HeaderBuilder { $0.imageSize = bytes }.parsed().imageSizeBytes == bytes)
    }

    // MARK: Features

    @Test func unknownCompatBitsArePreserved() throws {
        let builder = HeaderBuilder { $0.compatFeatures = .max }
        #expect(try builder.parsed().encoded() == builder.bytes)
    }

    @Test func noProbeWithoutBackingFileIsIgnored() throws {
        let builder = HeaderBuilder {
            $0.features = 0x4
            $0.backingFileNameOffset = .max
            $0.backingFileNameSize = .max
        }
        let header = try builder.parsed()
        #expect(header.backingFileNameRange == nil)
        #expect(!header.backingFileIsRaw)
        #expect(header.encoded() == builder.bytes)
    }

    // MARK: Order of the checks

    /// Repairing the faults of a header one by one uncovers them in QEMU's order.
    @Test func faultsAreFoundInOrder() {
        var builder = HeaderBuilder {
            $0.magic = 1
            $0.features = 0x9
            $0.clusterSize = 5000
            $0.tableSize = 3
            $0.imageSize = 1
            $0.l1TableOffset = 1
            $0.headerSize = 0
            $0.backingFileNameOffset = .max
            $0.backingFileNameSize = .max
        }
        #expect(builder.refusal?.field == .magic)
        builder.magic = HeaderBuilder().magic
        #expect(builder.refusal?.field == .features)
        builder.features = 0x1
        #expect(builder.refusal?.field == .clusterSize)
        builder.clusterSize = 65536
        #expect(builder.refusal?.field == .tableSize)
        builder.tableSize = 4
        #expect(builder.refusal?.field == .imageSize)
        builder.imageSize = 512
        #expect(builder.refusal?.field == .l1TableOffset)
        builder.l1TableOffset = 65536
        #expect(builder.refusal?.field == .headerSize)
        builder.headerSize = 1
        #expect(builder.refusal?.field == .backingFileNameOffset)
        builder.features = 0
        #expect(builder.refusal == nil)
    }

    // MARK: Random bytes

    /// Bytes at random, behind a valid magic in every second header and a valid geometry in every fourth, and valid
    /// headers with a few bits flipped. What is accepted must encode to the bytes it came from and keep the promises
    /// of the type.
    @Test func hundredThousandRandomHeadersNeverTrap() throws {
        var random = SeededRandom(seed: 3)
        var accepted = 0
        for round in 0..<100_000 {
            var bytes: [UInt8]
            var fileSizeBytes = random.next() >> UInt64.random(in: 0...63, using: &random)
            if round % 8 == 7 {
                let builder = HeaderBuilder.randomValid(using: &random)
                bytes = builder.bytes
                fileSizeBytes = builder.fileSizeBytes
                for _ in 0..<Int.random(in: 0...3, using: &random) {
                    bytes[Int.random(in: 0..<64, using: &random)] ^= 1 << UInt8.random(in: 0...7, using: &random)
                }
            } else {
                bytes = (0..<64).map { _ in UInt8.random(in: 0 ... .max, using: &random) }
                let valid = HeaderBuilder.randomValid(using: &random).bytes
                if round % 2 == 1 { bytes.replaceSubrange(0..<4, with: valid[0..<4]) }
                if round % 4 == 3 { bytes.replaceSubrange(4..<24, with: valid[4..<24]) }
            }
            do {
                let header = try QEDHeader(parsing: bytes, fileSizeBytes: fileSizeBytes)
                accepted += 1
                #expect(header.encoded() == bytes)
                #expect(header.headerAreaSizeBytes >= 4096)
                #expect(header.l1TableFileOffset >= header.headerAreaSizeBytes)
                #expect(header.l1TableFileOffset + header.geometry.tableSizeBytes <= fileSizeBytes)
                #expect(header.imageSizeBytes <= header.geometry.maximumImageSizeBytes)
                if let range = header.backingFileNameRange {
                    #expect((64...header.headerAreaSizeBytes).contains(range.endFileOffset))
                }
            } catch {
                #expect(!error.description.isEmpty)
            }
        }
        // One round in eight starts from a valid header; a good part of those must come through for this to test
        // anything.
        #expect(accepted > 2_000)
    }
}
