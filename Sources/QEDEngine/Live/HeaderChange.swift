import BlockStorage
import QEDFormat
import Synchronization
import SystemPackage

/// What can be changed in the header of an image while it is served.
public enum HeaderChange: Sendable {
    /// With which the chain goes on.
    case backingFile(BackingFileName, isRaw: Bool)
    /// None any more: the image has everything that lay beneath it, durably.
    case noBackingFile
    /// Larger than it was. What becomes visible reads as zeros already.
    case imageSize(UInt64)
}

/// A header that could not be changed. It is as it was, or, where the disk has failed, one or the other.
public enum HeaderChangeError: Error, Equatable, Sendable, CustomStringConvertible {
    /// No room in its first 4 KiB for another name beside the one that it has.
    case noRoom(byteCount: Int)
    /// Another program has data in it, which nobody here knows.
    case foreignData
    case format(QEDFormatError)
    case request(RequestError)

    public var description: String {
        switch self {
        case .noRoom(let byteCount):
            "its header has no room for a backing file's name of \(byteCount) bytes; use a shorter one"
        case .foreignData: "another program has data in its header, which a new backing file's name could overwrite"
        case .format(let error): error.fault
        case .request(let error): "\(error.errno)"
        }
    }
}

extension SpaceExtender {
    /// Changes the header, durably: a power cut leaves the old one or the new one, which are both true as long as the caller
    /// keeps what the old one says. Requests go on meanwhile; extensions and trims, which write the header as well, wait.
    func changeHeader(_ change: HeaderChange) async throws(HeaderChangeError) {
        precondition(!image.isReadOnly, "the header of an image that is only read")
        if let failure = image.failure { throw .request(failure) }
        while !image.withCursor({ $0.cursor.beginHeaderChange() }) { _ = await cursorIdle() }
        defer {
            let waiters = image.withCursor { state in
                state.cursor.headerChangeEnded()
                return state.takeSpaceWaiters()
            }
            for waiter in waiters { waiter.resume(returning: 0) }
        }
        // NEED_CHECK is as it was last written.
        let before = Array(UnsafeRawBufferPointer(start: image.headerPage, count: Int(QEDLimits.headerSizeBytes)))
        var header: QEDHeader
        do throws(QEDFormatError) {
            header = try QEDHeader(parsing: before, fileSizeBytes: image.top.fileSizeBytes)
        } catch {
            preconditionFailure("the header in memory is none: \(error.fault)")
        }
        switch change {
        case .imageSize(let sizeBytes):
            do throws(QEDFormatError) { try header.setImageSize(bytes: sizeBytes) } catch { throw .format(error) }
            try await writeHeader(header, orAgain: before)
            image.headerSize.store(sizeBytes, ordering: .relaxed)
        case .backingFile(let name, let isRaw):
            let old = header.backingFileNameRange
            guard header.compatFeatures == 0 else { throw .foreignData }
            guard let place = unusedPlace(for: name.bytes.count, in: header) else {
                throw .noRoom(byteCount: name.bytes.count)
            }
            // First the name, where nobody looks yet.
            put(name.bytes, at: place)
            if !isSabotaged(.nameWithHeader) {
                do throws(HeaderChangeError) { try await writeHeaderPage() } catch {
                    put(Array(repeating: 0, count: name.bytes.count), at: place)
                    throw error
                }
            }
            do throws(QEDFormatError) {
                try header.setBackingFile(nameAt: UInt64(place), sizeBytes: name.bytes.count, isRaw: isRaw)
            } catch {
                throw .format(error)
            }
            try await writeHeader(header, orAgain: before)
            // Then its place is free for the next one.
            await forgetName(at: old)
        case .noBackingFile:
            let old = header.backingFileNameRange
            header.removeBackingFile()
            try await writeHeader(header, orAgain: before)
            await forgetName(at: old)
        }
    }

    /// Makes zeros of a name that the header does not point at any more. Where that fails it stays, and is nobody's.
    private func forgetName(at range: BackingFileNameRange?) async {
        guard let range, range.endFileOffset <= UInt64(Image.headerPageBytes) else { return }
        put(Array(repeating: 0, count: range.sizeBytes), at: Int(range.fileOffset))
        try? await writeHeaderPage()
    }

    /// Whether the L1 table in the file has entries behind the disk's end: left by somebody who made it smaller, and did not
    /// come to its end. They would be the disk's where it grows.
    func hasTablesBehindEnd(upTo sizeBytes: UInt64) async throws(RequestError) -> Bool {
        let geometry = image.geometry
        let first = geometry.requiredL1Entries(imageSizeBytes: image.sizeBytes)
        let end = geometry.requiredL1Entries(imageSizeBytes: sizeBytes)
        let perPiece = QEDGeometry.entriesPerL2Page
        let buffer = UnsafeMutableRawPointer.allocate(
            byteCount: QEDGeometry.l2PageSizeBytes, alignment: QEDGeometry.l2PageSizeBytes)
        defer { buffer.deallocate() }
        let entries = buffer.assumingMemoryBound(to: UInt64.self)
        var index = first
        while index < end {
            let piece = index / perPiece
            do throws(StorageError) {
                try await files.read(
                    0, into: buffer, byteCount: QEDGeometry.l2PageSizeBytes,
                    fileOffset: image.top.header.l1TableFileOffset + UInt64(piece * QEDGeometry.l2PageSizeBytes))
            } catch {
                throw .storage(error.errno)
            }
            let last = min((piece + 1) * perPiece, end)
            for index in index..<last where entries[index - piece * perPiece] != 0 { return true }
            index = last
        }
        return false
    }

    private func put(_ bytes: [UInt8], at offset: Int) {
        precondition(offset >= QEDLimits.headerSizeBytes && offset + bytes.count <= Image.headerPageBytes, "over the header")
        image.headerPage.advanced(by: offset).copyMemory(from: bytes, byteCount: bytes.count)
    }

    /// - Parameter before: the header's bytes as they were: what is written next, where this one could not be.
    private func writeHeader(_ header: QEDHeader, orAgain before: [UInt8]) async throws(HeaderChangeError) {
        let encoded = header.encoded()
        image.headerPage.copyMemory(from: encoded, byteCount: encoded.count)
        do throws(RequestError) {
            files.counters.pointee.headerWrites &+= 1
            try await writeHeaderSector()
            try await committer.sync()
        } catch {
            image.headerPage.copyMemory(from: before, byteCount: before.count)
            throw .request(error)
        }
    }

    private func writeHeaderPage() async throws(HeaderChangeError) {
        do throws(RequestError) {
            files.counters.pointee.headerWrites &+= 1
            try await files.write(image.headerPage, byteCount: Image.headerPageBytes, fileOffset: 0)
            try await committer.sync()
        } catch {
            throw .request(error)
        }
    }

    /// Where that many bytes of the header's page are zeros that are nobody's: not the name that is there, nor the place of the
    /// session's note.
    private func unusedPlace(for byteCount: Int, in header: QEDHeader) -> Int? {
        let page = UnsafeRawBufferPointer(start: image.headerPage, count: Image.headerPageBytes)
        return header.unusedSpace(for: byteCount, in: page, besides: SessionNote.range)
    }
}
