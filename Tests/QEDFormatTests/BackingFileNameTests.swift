import QEDFormat
import TestSupport
import Testing

@Suite struct BackingFileNameTests {
    /// A header whose name field has these values, with 4 KiB clusters so that lengths around the limits can be tried.
    func header(offset: UInt32, size: UInt32, headerClusters: UInt32 = 1) -> HeaderBuilder {
        HeaderBuilder {
            $0.clusterSize = 4096
            $0.headerSize = headerClusters
            $0.l1TableOffset = UInt64(headerClusters) * 4096
            $0.features = 0x5
            $0.backingFileNameOffset = offset
            $0.backingFileNameSize = size
            $0.fileSizeBytes = 1 << 20
        }
    }

    @Test("names that end with the header area", arguments: [(64, 4032), (4095, 1)] as [(UInt32, UInt32)])
    func atTheEnd(offset: UInt32, size: UInt32) throws {
        #expect(try header(offset: offset, size: size).parsed().backingFileNameRange?.endFileOffset == 4096)
    }

    @Test func lengthLimit() throws {
        #expect(try header(offset: 64, size: 4095, headerClusters: 2).parsed().backingFileNameRange?.sizeBytes == 4095)
        for size: UInt32 in [4096, 5000] {
            #expect(
                header(offset: 64, size: size, headerClusters: 2).refusal
                    == .backingFileNameTooLong(sizeBytes: UInt64(size)))
        }
    }

    @Test func emptyName() {
        #expect(header(offset: 64, size: 0).refusal == .backingFileNameEmpty)
        #expect(throws: QEDFormatError.backingFileNameEmpty) { try BackingFileName([]) }
    }

    @Test func nulBytes() {
        for (name, position) in [("\0name", 0), ("na\0me", 2), ("name\0", 4)] {
            #expect(throws: QEDFormatError.backingFileNameContainsNUL(position: position)) {
                try BackingFileName(Array(name.utf8))
            }
        }
    }

    @Test func longestName() throws {
        #expect(try BackingFileName([UInt8](repeating: 0x61, count: 4095)).bytes.count == 4095)
        #expect(throws: QEDFormatError.backingFileNameTooLong(sizeBytes: 4096)) {
            try BackingFileName([UInt8](repeating: 0x61, count: 4096))
        }
    }

    @Test func bytesThatAreNotUTF8() throws {
        #expect(try BackingFileName([0xff, 0x2f, 0xfe, 0x80]).bytes == [0xff, 0x2f, 0xfe, 0x80])
    }

    @Test func protocolsAndAbsoluteNames() throws {
        func name(_ string: String) throws -> BackingFileName { try BackingFileName(Array(string.utf8)) }
        for string in ["a:b.raw", "nbd://host/x", "json:{}", "file:x", ":"] {
            #expect(try name(string).looksLikeProtocol, "\(string)")
        }
        for string in ["base.raw", "./a:b.raw", "dir/a:b", "/a:b"] {
            #expect(try !name(string).looksLikeProtocol, "\(string)")
        }
        #expect(try name("/base").isAbsolute)
        #expect(try !name("./base").isAbsolute)
    }
}
