import BlockStorage
import Platform
import QEDFormat

/// What an image's header says of the mapping log, besides that there is one: 64 bytes at the end of the first sector, the one
/// that holds the bits as well, so that all of it changes together.
///
/// It tells a power cut from a log that is somewhere else. After a power cut the boot is another one; the log has gone
/// with it, and with it nothing that was promised. On the same boot the log exists, or existed: whoever cannot find it
/// would lose what was acknowledged.
///
///     448   magic, boot (two words), session; all little-endian; then zeros
///
/// Valid as long as NEED_CHECK and the log's autoclear bit are set: programs that do not know it clear that one.
package struct SessionNote: Equatable {
    package var boot: BootIdentity
    /// As in the log: which of two logs of one file the header means.
    package var session: UInt64

    static let fileOffset = 448
    private static let byteCount = 64
    static var range: Range<Int> { fileOffset..<(fileOffset + byteCount) }
    /// "qed-sess"
    private static let magic: UInt64 = 0x7373_6573_2d64_6571

    package init(boot: BootIdentity, session: UInt64) {
        self.boot = boot
        self.session = session
    }

    /// - Parameter sector: the image's first 512 bytes, whose header is `header`.
    /// - Returns: nil where there is none.
    package init?(in sector: UnsafeRawBufferPointer, of header: QEDHeader) {
        guard header.needsCheck, header.hasMappingLog, SessionNote.hasRoom(in: sector, of: header),
            SessionNote.word(0, in: sector) == SessionNote.magic
        else { return nil }
        boot = BootIdentity(high: SessionNote.word(1, in: sector), low: SessionNote.word(2, in: sector))
        session = SessionNote.word(3, in: sector)
    }

    /// Whether nothing but a note lies there: the name of the backing file may, if it is longer than 384 bytes, and what
    /// another program has put there, or may have (compatible features that nobody here knows), is not ours to overwrite.
    static func hasRoom(in sector: UnsafeRawBufferPointer, of header: QEDHeader) -> Bool {
        precondition(sector.count >= Int(QEDLimits.sectorSizeBytes), "the whole first sector")
        guard header.compatFeatures == 0 else { return false }
        if let name = header.backingFileNameRange,
            name.fileOffset < UInt64(fileOffset + byteCount), name.fileOffset + UInt64(name.sizeBytes) > UInt64(fileOffset)
        {
            return false
        }
        if word(0, in: sector) == magic { return true }
        return sector[fileOffset..<(fileOffset + byteCount)].allSatisfy { $0 == 0 }
    }

    /// Puts a note, or none, where there is room for it.
    static func store(_ note: SessionNote?, in sector: UnsafeMutableRawPointer) {
        let words = note.map { [magic, $0.boot.high, $0.boot.low, $0.session] } ?? []
        precondition(words.count * 8 <= byteCount && fileOffset + byteCount <= Int(QEDLimits.sectorSizeBytes), "a torn note")
        for index in 0..<(byteCount / 8) {
            let word = index < words.count ? words[index] : 0
            sector.storeBytes(of: word.littleEndian, toByteOffset: fileOffset + index * 8, as: UInt64.self)
        }
    }

    private static func word(_ index: Int, in sector: UnsafeRawBufferPointer) -> UInt64 {
        UInt64(littleEndian: sector.loadUnaligned(fromByteOffset: fileOffset + index * 8, as: UInt64.self))
    }
}
