/// Which bases elsewhere an image may name on this machine, whoever opens it: a file of the administrator's with a pattern in
/// each line, as `--base-allow` takes them. Empty lines and those that begin with # say nothing, nor does what lies behind the
/// first 64 KiB.
public enum AllowedBases {
    public static let path = "/etc/qed-ublk/base-allow"
    static let largestBytes = 1 << 16

    /// - Throws: where there is such a file that cannot be read. What it would have allowed is not guessed.
    public static func ofMachine() throws(ImageFileError) -> [String] {
        let file: ImageFile
        do throws(ImageFileError) {
            file = try ImageFile(path: path, access: .readOnly, caching: .buffered, lock: nil)
        } catch {
            if case .notFound = error { return [] }
            throw error
        }
        return patterns(try file.readBytes(byteCount: largestBytes))
    }

    /// - Parameter bytes: of the file, from its start.
    static func patterns(_ bytes: [UInt8]) -> [String] {
        var bytes = bytes[...]
        // A pattern that is cut short can allow more than the whole one.
        if bytes.count >= largestBytes { bytes = bytes[..<(bytes.lastIndex(of: UInt8(ascii: "\n")) ?? 0)] }
        return String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline).map { line in
            func isBlank(_ character: Character) -> Bool { character == " " || character == "\t" }
            var words = line.drop(while: isBlank)
            while let last = words.last, isBlank(last) { words.removeLast() }
            return String(words)
        }
        .filter { !$0.isEmpty && !$0.hasPrefix("#") }
    }
}
