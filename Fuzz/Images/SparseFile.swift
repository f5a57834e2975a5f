import Glibc

/// Whether two pieces of memory hold the same bytes.
package func isSame(_ bytes: UnsafeRawBufferPointer, _ other: [UInt8]) -> Bool {
    guard bytes.count == other.count, let base = bytes.baseAddress else { return bytes.count == other.count }
    return other.withUnsafeBytes { $0.baseAddress.map { memcmp(base, $0, bytes.count) == 0 } ?? true }
}

/// The bytes of a file in memory: pages that were never written take none, so a file of any length costs what is in it.
/// A value: a copy is a snapshot, and shares what neither has changed.
package struct SparseFile {
    package static let pageBytes = 4096
    /// What the kernel allows.
    package static let longest: UInt64 = 1 << 63 - 1

    package private(set) var pages: [UInt64: [UInt8]] = [:]
    package private(set) var length: UInt64 = 0

    package init() {}

    /// Bytes beyond the end are not there.
    package func read(into destination: UnsafeMutableRawBufferPointer, at offset: UInt64) -> Int {
        guard offset < length else { return 0 }
        let count = Int(min(UInt64(destination.count), length - offset))
        var done = 0
        while done < count {
            let position = offset + UInt64(done)
            let inPage = Int(position % UInt64(SparseFile.pageBytes))
            let piece = min(count - done, SparseFile.pageBytes - inPage)
            let target = UnsafeMutableRawBufferPointer(rebasing: destination[done..<(done + piece)])
            if let page = pages[position / UInt64(SparseFile.pageBytes)] {
                page.withUnsafeBytes { target.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[inPage..<(inPage + piece)])) }
            } else {
                target.initializeMemory(as: UInt8.self, repeating: 0)
            }
            done += piece
        }
        return count
    }

    /// Makes the file longer where need be. The range must end below `longest`.
    package mutating func write(_ source: UnsafeRawBufferPointer, at offset: UInt64) {
        length = max(length, offset + UInt64(source.count))
        var done = 0
        while done < source.count {
            let position = offset + UInt64(done)
            let inPage = Int(position % UInt64(SparseFile.pageBytes))
            let piece = min(source.count - done, SparseFile.pageBytes - inPage)
            let bytes = UnsafeRawBufferPointer(rebasing: source[done..<(done + piece)])
            let index = position / UInt64(SparseFile.pageBytes)
            // Zeros into a hole leave it a hole.
            if pages[index] != nil || bytes.contains(where: { $0 != 0 }) {
                pages[index, default: [UInt8](repeating: 0, count: SparseFile.pageBytes)].withUnsafeMutableBytes {
                    UnsafeMutableRawBufferPointer(rebasing: $0[inPage..<(inPage + piece)]).copyMemory(from: bytes)
                }
            }
            done += piece
        }
    }

    package mutating func write(_ bytes: [UInt8], at offset: UInt64) { bytes.withUnsafeBytes { write($0, at: offset) } }

    /// Zeros within the file; its length stays.
    package mutating func zero(from offset: UInt64, byteCount: UInt64) {
        let end = min(offset + byteCount, length)
        guard offset < end else { return }
        let pageBytes = UInt64(SparseFile.pageBytes)
        for index in pageIndexes(from: offset, to: end) {
            let first = index * pageBytes
            if offset <= first && first + pageBytes <= end {
                pages[index] = nil
            } else {
                let range = Int(max(offset, first) - first)..<Int(min(end, first + pageBytes) - first)
                pages[index]?.replaceSubrange(range, with: repeatElement(0, count: range.count))
            }
        }
    }

    package mutating func setLength(_ newLength: UInt64) {
        if newLength < length { zero(from: newLength, byteCount: length - newLength) }
        length = newLength
    }

    /// The pages that may hold something else than zeros, in the order of the file.
    package func pageIndexes(from start: UInt64, to end: UInt64) -> [UInt64] {
        guard start < end else { return [] }
        let first = start / UInt64(SparseFile.pageBytes)
        let last = (end - 1) / UInt64(SparseFile.pageBytes)
        if last - first < 16 { return (first...last).filter { pages[$0] != nil } }
        return pages.keys.filter { $0 >= first && $0 <= last }.sorted()
    }

    package func bytes(at offset: UInt64, count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        _ = bytes.withUnsafeMutableBytes { read(into: $0, at: offset) }
        return bytes
    }

    /// A little-endian word; zeros beyond the end.
    package func word(at offset: UInt64) -> UInt64 {
        guard offset < length else { return 0 }
        guard offset % 8 == 0, length - offset >= 8 else {
            return bytes(at: offset, count: 8).withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
        }
        guard let page = pages[offset / UInt64(SparseFile.pageBytes)] else { return 0 }
        return page.withUnsafeBytes {
            UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: Int(offset % UInt64(SparseFile.pageBytes)), as: UInt64.self))
        }
    }

    /// The little-endian words of a page. What lies beyond the file's end is zeros.
    package func words(ofPage index: UInt64) -> [UInt64] {
        guard let page = pages[index] else { return [] }
        return page.withUnsafeBytes { bytes in
            (0..<(SparseFile.pageBytes / 8)).map {
                UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self))
            }
        }
    }

    package mutating func setWord(_ value: UInt64, at offset: UInt64) {
        withUnsafeBytes(of: value.littleEndian) { write($0, at: offset) }
    }

    /// The first place where the two differ; nil where they are the same.
    package func difference(from other: SparseFile) -> String? {
        guard length == other.length else { return "length \(length) instead of \(other.length)" }
        let zeros = [UInt8](repeating: 0, count: SparseFile.pageBytes)
        var first: UInt64?
        for index in Set(pages.keys).union(other.pages.keys) {
            let (mine, theirs) = (pages[index] ?? zeros, other.pages[index] ?? zeros)
            if mine == theirs { continue }
            let position = mine.indices.first { mine[$0] != theirs[$0] } ?? 0
            first = min(first ?? .max, index * UInt64(SparseFile.pageBytes) + UInt64(position))
        }
        return first.map { "byte \($0)" }
    }
}
