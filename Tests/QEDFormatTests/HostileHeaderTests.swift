import QEDFormat
import TestSupport
import Testing

/// Headers that are damaged, odd or made to hurt.
@Suite struct HostileHeaderTests {
    // MARK: The file and its magic

    @Test func emptyFileIsNotQED() {
        #expect(throws: QEDFormatError.notQED) { try QEDHeader(parsing: [], fileSizeBytes: 0) }
    }

    @Test func fileCutInsideItsHeader() {
        let bytes = Array(HeaderBuilder().bytes.prefix(63))
        #expect(throws: QEDFormatError.headerTruncated(fileSizeBytes: 63)) {
            try QEDHeader(parsing: bytes, fileSizeBytes: 63)
        }
        #expect(throws: QEDFormatError.headerTruncated(fileSizeBytes: 4)) {
            try QEDHeader(parsing: Array(bytes.prefix(4)), fileSizeBytes: 4)
        }
        #expect(throws: QEDFormatError.notQED) { try QEDHeader(parsing: Array(bytes.prefix(3)), fileSizeBytes: 3) }
    }

    @Test func fileCutBehindItsHeader() {
        #expect(
            HeaderBuilder { $0.fileSizeBytes = 64 }.refusal
                == .l1TablePastEndOfFile(fileOffset: 65536, tableSizeBytes: 262_144, fileSizeBytes: 64))
    }

    @Test("wrong magic", arguments: [0, 0x5145_4400, 0x0144_4551, 0x0044_4552, 0xfb49_4651] as [UInt32])
    func wrongMagic(magic: UInt32) {
        #expect(HeaderBuilder { $0.magic = magic }.refusal == .notQED)
    }

    // MARK: Geometry

    @Test("cluster sizes", arguments: [0, 2048, 5000, 1 << 27, 0xffff_ffff] as [UInt32])
    func clusterSize(bytes: UInt32) {
        #expect(HeaderBuilder { $0.clusterSize = bytes }.refusal == .invalidClusterSize(bytes: UInt64(bytes)))
    }

    @Test("table sizes", arguments: [0, 3, 32, 0xffff_ffff] as [UInt32])
    func tableSize(clusters: UInt32) {
        #expect(HeaderBuilder { $0.tableSize = clusters }.refusal == .invalidTableSize(clusters: UInt64(clusters)))
    }

    @Test func tablesOfOneClusterAreReadable() throws {
        #expect(try HeaderBuilder { $0.tableSize = 1 }.parsed().geometry.qemuLimitation == .tablesOfOneCluster)
    }

    @Test func tablesBeyondTheDesignLimit() {
        let builder = HeaderBuilder {
            $0.clusterSize = 1 << 26
            $0.tableSize = 16
            $0.l1TableOffset = 1 << 26
            $0.imageSize = 0
            $0.fileSizeBytes = 17 << 26
        }
        #expect(builder.refusal == .tableTooLarge(bytes: 1 << 30))
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

    // MARK: Header area

    @Test("header size 0", arguments: [0, 65536] as [UInt64])
    func headerSizeZero(l1TableOffset: UInt64) {
        let builder = HeaderBuilder {
            $0.headerSize = 0
            $0.l1TableOffset = l1TableOffset
        }
        #expect(builder.refusal == .invalidHeaderSize(clusters: 0, clusterSizeBytes: 65536))
    }

    @Test(
        "header sizes whose product with the cluster size is beyond 32 bits",
        arguments: [65536, 0xffff_ffff] as [UInt32])
    func headerSizeTooLarge(clusters: UInt32) {
        let builder = HeaderBuilder {
            $0.headerSize = clusters
            $0.l1TableOffset = 1 << 50
            $0.fileSizeBytes = 1 << 51
        }
        #expect(builder.refusal == .invalidHeaderSize(clusters: UInt64(clusters), clusterSizeBytes: 65536))
    }

    @Test("header areas that reach over the L1 table", arguments: [6, 65535, 0xffff_ffff] as [UInt32])
    func headerAreaOverL1Table(clusters: UInt32) {
        #expect(
            HeaderBuilder { $0.headerSize = clusters }.refusal
                == .l1TableInHeaderArea(fileOffset: 65536, headerAreaSizeBytes: UInt64(clusters) * 65536))
    }

    @Test func largestHeaderArea() throws {
        let builder = HeaderBuilder {
            $0.headerSize = 65535
            $0.l1TableOffset = 65535 * 65536
            $0.fileSizeBytes = 65539 * 65536
        }
        #expect(try builder.parsed().headerAreaSizeBytes == 65535 * 65536)
    }

    @Test func headerAreaOfTwoClusters() throws {
        let builder = HeaderBuilder {
            $0.headerSize = 2
            $0.l1TableOffset = 131_072
            $0.fileSizeBytes = 6 * 65536
        }
        #expect(try builder.parsed().headerAreaSizeBytes == 131_072)
    }

    // MARK: L1 table

    @Test("inside the header area", arguments: [0, 65536] as [UInt64])
    func l1InHeaderArea(offset: UInt64) {
        let builder = HeaderBuilder {
            $0.headerSize = 2
            $0.l1TableOffset = offset
        }
        #expect(builder.refusal == .l1TableInHeaderArea(fileOffset: offset, headerAreaSizeBytes: 131_072))
    }

    @Test("not aligned", arguments: [65537, 65536 + 512, 65536 + 4096, .max, 1 << 63 | 8] as [UInt64])
    func l1Unaligned(offset: UInt64) {
        #expect(
            HeaderBuilder { $0.l1TableOffset = offset }.refusal
                == .l1TableUnaligned(fileOffset: offset, clusterSizeBytes: 65536))
    }

    /// The last three wrap when the table's size is added: 2^64 - 65536, 2^64 - 262144 (to zero exactly), 2^64 -
    /// 131072.
    @Test(
        "past the end of the file",
        arguments: [131_072, 327_680, 1 << 40, 1 << 63, 0 &- 65536, 0 &- 262_144, 0 &- 131_072] as [UInt64])
    func l1PastEnd(offset: UInt64) {
        #expect(
            HeaderBuilder { $0.l1TableOffset = offset }.refusal
                == .l1TablePastEndOfFile(fileOffset: offset, tableSizeBytes: 262_144, fileSizeBytes: 327_680))
    }

    @Test("file cut in the L1 table", arguments: [327_679, 327_680 - 511, 327_680 - 512, 327_680 - 65536] as [UInt64])
    func l1Cut(fileSizeBytes: UInt64) {
        #expect(
            HeaderBuilder { $0.fileSizeBytes = fileSizeBytes }.refusal
                == .l1TablePastEndOfFile(fileOffset: 65536, tableSizeBytes: 262_144, fileSizeBytes: fileSizeBytes))
    }

    @Test func l1InTheMiddleOfTheFile() throws {
        let builder = HeaderBuilder {
            $0.l1TableOffset = 100 * 65536
            $0.fileSizeBytes = 1000 * 65536
        }
        #expect(try builder.parsed().l1TableFileOffset == 100 * 65536)
    }

    // MARK: Image size

    @Test("not a multiple of 512", arguments: [1, 511, 513, .max] as [UInt64])
    func imageSizeUnaligned(bytes: UInt64) {
        #expect(HeaderBuilder { $0.imageSize = bytes }.refusal == .imageSizeNotMultipleOf512(bytes: bytes))
    }

    @Test("above what the tables map", arguments: [(1 << 46) + 512, 1 << 63, 0 &- 512] as [UInt64])
    func imageSizeAboveTables(bytes: UInt64) {
        #expect(
            HeaderBuilder { $0.imageSize = bytes }.refusal
                == .imageSizeTooLarge(bytes: bytes, maximumBytes: 1 << 46))
    }

    @Test("above what file offsets allow", arguments: [(1 << 63) - 512, 1 << 63, 0 &- 512] as [UInt64])
    func imageSizeAboveFileOffsets(bytes: UInt64) {
        let builder = HeaderBuilder {
            $0.clusterSize = 1 << 21
            $0.tableSize = 8
            $0.l1TableOffset = 1 << 21
            $0.fileSizeBytes = 1 << 30
            $0.imageSize = bytes
        }
        #expect(builder.refusal == .imageSizeTooLarge(bytes: bytes, maximumBytes: (1 << 63) - (1 << 30)))
    }

    @Test("sizes that are fine", arguments: [0, 512, 65536 + 512, 1 << 46] as [UInt64])
    func imageSizeFine(bytes: UInt64) throws {
        #expect(try HeaderBuilder { $0.imageSize = bytes }.parsed().imageSizeBytes == bytes)
    }

    // MARK: Features

    @Test("unknown feature bits", arguments: [3, 32, 63])
    func unknownFeature(bit: UInt64) {
        #expect(
            HeaderBuilder { $0.features = 1 << bit | 0x2 }.refusal == .unsupportedFeatures(unknownBits: 1 << bit))
    }

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
        var random = SeededNumbers(seed: 3)
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
