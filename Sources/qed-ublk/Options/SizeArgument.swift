/// Sizes on the command line: a number of bytes, or a number with a suffix for a power of 1024 (1000, 512M, 20G, 1.5T).
enum SizeArgument {
    /// - Returns: bytes; a fraction of a byte that remains is dropped.
    /// - Throws: what is wrong with `text`, as the end of a sentence about it.
    static func parse(_ text: String) throws(SizeArgumentError) -> UInt64 {
        var digits = Substring(text)
        var shift = 0
        var hasSuffix = false
        if let last = text.last, let exponent = suffixes.firstIndex(of: Character(last.lowercased())) {
            digits.removeLast()
            shift = 10 * exponent
            hasSuffix = true
        }
        let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy(isDigit) }),
            parts.count == 1 || (hasSuffix && shift > 0)
        else { throw .notASize }

        guard let whole = UInt64(parts[0]) else { throw .tooLarge }
        var bytes = UInt128(whole) << UInt128(shift)
        if parts.count == 2 {
            // Below 10^18 and 2^60: the product fits. Further digits are less than a byte.
            let fraction = parts[1].prefix(18)
            let denominator = fraction.reduce(UInt128(1)) { product, _ in product * 10 }
            bytes += (UInt128(UInt64(fraction) ?? 0) << UInt128(shift)) / denominator
        }
        guard bytes <= UInt128(UInt64.max) else { throw .tooLarge }
        return UInt64(bytes)
    }

    /// Each stands for 1024 to the power of its position.
    private static let suffixes: [Character] = ["b", "k", "m", "g", "t", "p", "e"]

    private static func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
}

enum SizeArgumentError: Error, Equatable, CustomStringConvertible {
    case notASize
    case tooLarge

    var description: String {
        switch self {
        case .notASize:
            "give bytes, or a number with K, M, G, T, P or E for powers of 1024, such as 20G or 1.5T"
        case .tooLarge:
            "it is more than 2^64 bytes"
        }
    }
}
