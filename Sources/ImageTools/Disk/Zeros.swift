import Glibc

/// Looks for zeros in memory.
enum Zeros {
    /// Whether all bytes are 0.
    static func fill(_ bytes: UnsafeRawPointer, count: Int) -> Bool {
        guard count > 0 else { return true }
        // Each byte equals the one before it, and the first is 0: the comparison of the C library does the work.
        return bytes.load(as: UInt8.self) == 0 && memcmp(bytes, bytes + 1, count - 1) == 0
    }

    /// Offset of the first block that is not all zeros; nil where there is none.
    static func firstOther(_ bytes: UnsafeRawPointer, count: Int, blockBytes: Int) -> Int? {
        stride(from: 0, to: count, by: blockBytes).first { !fill(bytes + $0, count: min(blockBytes, count - $0)) }
    }

    /// The parts of the memory that are not zeros: whole blocks, neighbours together.
    static func others(_ bytes: UnsafeRawPointer, count: Int, blockBytes: Int) -> [Range<Int>] {
        var parts: [Range<Int>] = []
        for start in stride(from: 0, to: count, by: blockBytes) {
            let end = min(start + blockBytes, count)
            if fill(bytes + start, count: end - start) { continue }
            if let last = parts.last, last.upperBound == start {
                parts[parts.count - 1] = last.lowerBound..<end
            } else {
                parts.append(start..<end)
            }
        }
        return parts
    }
}
