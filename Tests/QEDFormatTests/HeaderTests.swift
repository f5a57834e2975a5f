import QEDFormat
import Simulation
import TestSupport
import Testing

@Suite struct HeaderTests {
    @Test func freshDefaultImage() throws {
        let header = try HeaderBuilder().parsed()
        #expect(header.geometry == .standard)
        #expect(header.headerSizeClusters == 1)
        #expect(header.headerAreaSizeBytes == 65536)
        #expect(header.l1TableFileOffset == 65536)
        #expect(header.imageSizeBytes == 1 << 30)
        #expect(header.features == [])
        #expect(header.backingFileNameRange == nil)
        #expect(!header.needsCheck)
        #expect(!header.hasAutoclearFeatures())
    }

    /// Every field distinct and every byte position covered, so that a swapped or shifted field cannot go unnoticed.
    @Test func everyFieldIsReadFromItsPlace() throws {
        let builder = HeaderBuilder {
            $0.clusterSize = 8192
            $0.tableSize = 2
            $0.headerSize = 3
            $0.features = 0x7
            $0.compatFeatures = 0x0102_0304_0506_0708
            $0.autoclearFeatures = 0x1112_1314_1516_1718
            $0.l1TableOffset = 5 * 8192
            $0.imageSize = 0x1234 * 512
            $0.backingFileNameOffset = 0x1001
            $0.backingFileNameSize = 0x203
            $0.fileSizeBytes = 7 * 8192
        }
        let header = try builder.parsed()
        #expect(header.geometry.clusterSizeBytes == 8192)
        #expect(header.geometry.tableSizeClusters == 2)
        #expect(header.headerSizeClusters == 3)
        #expect(header.features == [.backingFile, .needCheck, .backingFormatNoProbe])
        #expect(header.compatFeatures == 0x0102_0304_0506_0708)
        #expect(header.autoclearFeatures == 0x1112_1314_1516_1718)
        #expect(header.l1TableFileOffset == 5 * 8192)
        #expect(header.imageSizeBytes == 0x1234 * 512)
        #expect(header.backingFileNameRange?.fileOffset == 0x1001)
        #expect(header.backingFileNameRange?.sizeBytes == 0x203)
        #expect(header.backingFileNameRange?.endFileOffset == 0x1204)
        #expect(header.backingFileIsRaw)
        #expect(header.encoded() == builder.bytes)
    }

    @Test func bytesBehindTheHeaderAreIgnored() throws {
        let builder = HeaderBuilder()
        let header = try QEDHeader(
            parsing: builder.bytes + [UInt8](repeating: 0xff, count: 448), fileSizeBytes: builder.fileSizeBytes)
        #expect(header == (try builder.parsed()))
    }

    @Test func randomValidHeadersSurviveARoundTrip() throws {
        var random = SeededRandom(seed: 2)
        for _ in 0..<20_000 {
            let builder = HeaderBuilder.randomValid(using: &random)
            let header = try builder.parsed()
            #expect(header.encoded() == builder.bytes)
            #expect(try QEDHeader(parsing: header.encoded(), fileSizeBytes: builder.fileSizeBytes) == header)
        }
    }

    @Test func needCheckChangesOneBit() throws {
        let builder = HeaderBuilder { $0.compatFeatures = 0xff }
        var header = try builder.parsed()
        header.needsCheck = true
        var expected = builder.bytes
        expected[16] = 0x2
        #expect(header.encoded() == expected)
        header.needsCheck = false
        #expect(header.encoded() == builder.bytes)
    }

    @Test func autoclearBitsAreKeptUntilCleared() throws {
        let builder = HeaderBuilder { $0.autoclearFeatures = 1 << 63 | 1 }
        var header = try builder.parsed()
        #expect(header.hasAutoclearFeatures())
        #expect(header.encoded() == builder.bytes)
        header.clearAutoclearFeatures()
        #expect(!header.hasAutoclearFeatures())
        #expect(header.encoded() == HeaderBuilder().bytes)
    }

    @Test func sizeChangesObeyTheSameRules() throws {
        var header = try HeaderBuilder().parsed()
        try header.setImageSize(bytes: 2 << 30)
        #expect(header.encoded() == HeaderBuilder { $0.imageSize = 2 << 30 }.bytes)
        #expect(throws: QEDFormatError.imageSizeNotMultipleOf512(bytes: 513)) { try header.setImageSize(bytes: 513) }
        #expect(throws: QEDFormatError.imageSizeTooLarge(bytes: 1 << 47, maximumBytes: 1 << 46)) {
            try header.setImageSize(bytes: 1 << 47)
        }
        #expect(header.imageSizeBytes == 2 << 30)
    }

    @Test func newImageIsWhatQEMUCreates() throws {
        let header = try QEDHeader(newImageOfSizeBytes: 1 << 30, geometry: .standard)
        #expect(header.encoded() == HeaderBuilder().bytes)
    }

    @Test("a new overlay says where the name is and what the base is", arguments: [(true, 0x5), (false, 0x1)])
    func newOverlay(isRaw: Bool, features: UInt64) throws {
        let name = try BackingFileName(Array("base.img".utf8))
        let header = try QEDHeader(newImageOfSizeBytes: 1 << 30, geometry: .standard, backingFile: (name, isRaw))
        let expected = HeaderBuilder {
            $0.features = features
            $0.backingFileNameOffset = 64
            $0.backingFileNameSize = 8
        }
        #expect(header.encoded() == expected.bytes)
    }

    @Test func newImageRefusesANameThatDoesNotFit() throws {
        let geometry = try QEDGeometry(clusterSizeBytes: 4096, tableSizeClusters: 2)
        let longest = try BackingFileName([UInt8](repeating: 0x61, count: 4032))
        let tooLong = try BackingFileName([UInt8](repeating: 0x61, count: 4033))
        _ = try QEDHeader(newImageOfSizeBytes: 0, geometry: geometry, backingFile: (longest, true))
        #expect(
            throws: QEDFormatError.backingFileNameOutsideHeaderArea(
                fileOffset: 64, sizeBytes: 4033, headerAreaSizeBytes: 4096)
        ) {
            try QEDHeader(newImageOfSizeBytes: 0, geometry: geometry, backingFile: (tooLong, true))
        }
        _ = try QEDHeader(
            newImageOfSizeBytes: 0, geometry: geometry, headerSizeClusters: 2, backingFile: (tooLong, true))
    }
}

extension HeaderBuilder {
    /// A header that breaks no rule, with every field at random and a file that ends anywhere behind the L1 table.
    static func randomValid(using random: inout SeededRandom) -> HeaderBuilder {
        var builder = HeaderBuilder()
        let clusterShift = UInt32.random(in: 12...24, using: &random)
        let tableShift = UInt32.random(in: 0...min(4, 24 - clusterShift), using: &random)
        let clusterSize: UInt64 = 1 << clusterShift
        builder.clusterSize = 1 << clusterShift
        builder.tableSize = 1 << tableShift
        builder.headerSize = UInt32.random(in: 1...min(9, UInt32(0xffff_ffff / clusterSize)), using: &random)
        let headerAreaSize = UInt64(builder.headerSize) * clusterSize
        builder.features = UInt64.random(in: 0...7, using: &random)
        builder.compatFeatures = random.next()
        builder.autoclearFeatures = random.next()
        builder.l1TableOffset = headerAreaSize + UInt64.random(in: 0...1000, using: &random) * clusterSize
        let maximum = min(
            UInt128(1) << (3 * UInt128(clusterShift) + 2 * UInt128(tableShift) - 6), (UInt128(1) << 63) - (1 << 30))
        builder.imageSize = UInt64.random(in: 0...UInt64(maximum / 512), using: &random) * 512
        if builder.features & 1 == 1 {
            builder.backingFileNameSize = UInt32.random(in: 1...4032, using: &random)
            let lastOffset = UInt32(headerAreaSize) - builder.backingFileNameSize
            builder.backingFileNameOffset = UInt32.random(in: 64...lastOffset, using: &random)
        } else {
            builder.backingFileNameOffset = UInt32.random(in: 0 ... .max, using: &random)
            builder.backingFileNameSize = UInt32.random(in: 0 ... .max, using: &random)
        }
        builder.fileSizeBytes =
            builder.l1TableOffset + UInt64(builder.tableSize) * clusterSize
            + UInt64.random(in: 0...(1 << 40), using: &random)
        return builder
    }
}
