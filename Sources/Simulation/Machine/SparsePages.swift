import Glibc

/// The memory of disks: pages that are handed out and taken back all at once.
final class PagePool {
    private var chunks: [UnsafeMutableRawPointer] = []
    private var used = 0
    private static let pagesPerChunk = 64

    deinit { for chunk in chunks { chunk.deallocate() } }

    /// A page with whatever it held before.
    func take() -> UnsafeMutableRawPointer {
        let chunk = used / PagePool.pagesPerChunk
        if chunk == chunks.count {
            chunks.append(
                .allocate(
                    byteCount: PagePool.pagesPerChunk * SparsePages.pageBytes, alignment: SparsePages.pageBytes))
        }
        defer { used += 1 }
        return chunks[chunk] + used % PagePool.pagesPerChunk * SparsePages.pageBytes
    }

    /// Takes all pages back; nobody may use them any more.
    func reset() { used = 0 }
}

/// The bytes of a file: pages that are all zeros take no memory, and pages are shared with the file this one is a copy
/// of until either is changed. So a crash state of a disk costs the pages in which it differs.
struct SparsePages {
    static let pageBytes = 4096
    static let sectorBytes = 512
    static let sectorsPerPage = pageBytes / sectorBytes

    // SAFETY: each word is a page's address, with bit 0 set when the page belongs to this copy alone, or 0 for zeros.
    // Pages come from pools that live as long as the disks that use them.
    private var words: [UInt] = []

    var pageCount: Int { words.count }

    /// Makes this a copy of `other`; until one of them is changed they share all pages.
    ///
    /// `other` must not be changed in place while the copy is used, unless it is made to share as well.
    mutating func share(_ other: SparsePages) {
        words.removeAll(keepingCapacity: true)
        words.append(contentsOf: other.words)
        disown()
    }

    /// Makes this an independent copy of `other`; it must be empty before.
    mutating func copy(_ other: SparsePages, pool: PagePool) {
        for index in 0..<other.pageCount {
            guard let page = other.page(index) else { continue }
            write(page, byteCount: SparsePages.pageBytes, at: index * SparsePages.pageBytes, pool: pool)
        }
    }

    /// Treats all pages as shared from now on.
    mutating func disown() {
        for index in words.indices { words[index] &= ~1 }
    }

    /// The page's bytes, or nil when all are zeros.
    @inline(__always)
    func page(_ index: Int) -> UnsafeRawPointer? {
        guard index < words.count else { return nil }
        return UnsafeRawPointer(bitPattern: words[index] & ~1)
    }

    /// The sector's bytes, or nil when all are known to be zeros.
    @inline(__always)
    func sector(_ index: Int) -> UnsafeRawPointer? {
        page(index / SparsePages.sectorsPerPage).map { $0 + index % SparsePages.sectorsPerPage * SparsePages.sectorBytes }
    }

    /// A page to be changed.
    private mutating func ownedPage(_ index: Int, pool: PagePool) -> UnsafeMutableRawPointer {
        if index >= words.count { words.append(contentsOf: repeatElement(0, count: index + 1 - words.count)) }
        let word = words[index]
        if word & 1 != 0, let page = UnsafeMutableRawPointer(bitPattern: word & ~1) { return page }
        let page = pool.take()
        if let shared = UnsafeRawPointer(bitPattern: word) {
            memcpy(page, shared, SparsePages.pageBytes)
        } else {
            memset(page, 0, SparsePages.pageBytes)
        }
        words[index] = UInt(bitPattern: page) | 1
        return page
    }

    mutating func write(_ source: UnsafeRawPointer, byteCount: Int, at offset: Int, pool: PagePool) {
        var done = 0
        while done < byteCount {
            let position = offset + done
            let inPage = position % SparsePages.pageBytes
            let piece = min(byteCount - done, SparsePages.pageBytes - inPage)
            memcpy(ownedPage(position / SparsePages.pageBytes, pool: pool) + inPage, source + done, piece)
            done += piece
        }
    }

    mutating func zero(byteCount: Int, at offset: Int, pool: PagePool) {
        var position = offset
        let end = min(offset + byteCount, words.count * SparsePages.pageBytes)
        while position < end {
            let inPage = position % SparsePages.pageBytes
            let piece = min(end - position, SparsePages.pageBytes - inPage)
            let index = position / SparsePages.pageBytes
            if piece == SparsePages.pageBytes {
                words[index] = 0
            } else if words[index] != 0 {
                memset(ownedPage(index, pool: pool) + inPage, 0, piece)
            }
            position += piece
        }
    }

    func read(into destination: UnsafeMutableRawPointer, byteCount: Int, at offset: Int) {
        var done = 0
        while done < byteCount {
            let position = offset + done
            let inPage = position % SparsePages.pageBytes
            let piece = min(byteCount - done, SparsePages.pageBytes - inPage)
            if let page = page(position / SparsePages.pageBytes) {
                memcpy(destination + done, page + inPage, piece)
            } else {
                memset(destination + done, 0, piece)
            }
            done += piece
        }
    }

    func word(at offset: Int) -> UInt64 {
        guard let page = page(offset / SparsePages.pageBytes) else { return 0 }
        return UInt64(littleEndian: page.load(fromByteOffset: offset % SparsePages.pageBytes, as: UInt64.self))
    }
}
