import QEDFormat
import Testing

@Suite struct ErrorDescriptionTests {
    static let errors: [QEDFormatError] = [
        .notQED,
        .headerTruncated(fileSizeBytes: 12),
        .unsupportedFeatures(unknownBits: 0x88),
        .invalidClusterSize(bytes: 5000),
        .invalidTableSize(clusters: 3),
        .tableTooLarge(bytes: 1 << 30),
        .imageSizeNotMultipleOf512(bytes: 513),
        .imageSizeTooLarge(bytes: 1 << 62, maximumBytes: 1 << 46),
        .l1TableUnaligned(fileOffset: 77, clusterSizeBytes: 65536),
        .l1TableInHeaderArea(fileOffset: 0, headerAreaSizeBytes: 65536),
        .l1TablePastEndOfFile(fileOffset: 65536, tableSizeBytes: 262_144, fileSizeBytes: 64),
        .invalidHeaderSize(clusters: 0, clusterSizeBytes: 65536),
        .backingFileNameOutsideHeaderArea(fileOffset: 64, sizeBytes: 4033, headerAreaSizeBytes: 4096),
        .backingFileNameOverlapsHeader(fileOffset: 3),
        .backingFileNameEmpty,
        .backingFileNameTooLong(sizeBytes: 4096),
        .backingFileNameContainsNUL(position: 5),
    ]

    @Test("one line that starts with a verb and ends without a full stop", arguments: errors)
    func oneSentence(error: QEDFormatError) {
        let sentence = "\(error)"
        #expect(["is ", "needs ", "has "].contains { sentence.hasPrefix($0) })
        #expect(!sentence.contains("\n"))
        #expect(!sentence.hasSuffix("."))
        #expect(!error.fault.isEmpty)
    }

    @Test func saysWhatAndWhere() {
        #expect(
            "\(QEDFormatError.notQED)"
                == "is not a QED image: the file does not start with the QED magic bytes")
        #expect(
            "\(QEDFormatError.invalidClusterSize(bytes: 5000))"
                == "is not a usable QED image: the cluster size is 5000 bytes, but must be a power of two from 4096 to "
                + "67108864 (header field at byte 4)")
        #expect("\(QEDFormatError.unsupportedFeatures(unknownBits: 0x88))".contains("bits 0x88 at byte 16"))
        #expect("\(QEDFormatError.imageSizeNotMultipleOf512(bytes: 513))".contains("513 bytes"))
    }

    /// The table of fields, against the offsets of the format.
    @Test func fieldsLieWhereTheFormatSays() {
        #expect(QEDHeaderField.allCases.map(\.fileOffset) == [0, 4, 8, 12, 16, 24, 32, 40, 48, 56, 60])
    }
}
