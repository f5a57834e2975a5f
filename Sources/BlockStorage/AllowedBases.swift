/// Which bases elsewhere an image may name on this machine, whoever opens it: a file of the administrator's with a pattern in
/// each line, as `--base-allow` takes them. Empty lines and those that begin with # say nothing.
public enum AllowedBases {
    public static let path = "/etc/qed-ublk/base-allow"
    private static let largestBytes = 1 << 16

    /// - Throws: where there is such a file that cannot be read. What it would have allowed is not guessed.
    public static func ofMachine() throws(ImageFileError) -> [String] {
        let file: ImageFile
        do throws(ImageFileError) {
            file = try ImageFile(path: path, access: .readOnly, caching: .buffered, lock: nil)
        } catch {
            if case .notFound = error { return [] }
            throw error
        }
        return patterns(String(decoding: try file.readBytes(byteCount: largestBytes), as: UTF8.self))
    }

    static func patterns(_ text: String) -> [String] {
        text.split(separator: "\n").map { line in String(line.drop { $0 == " " || $0 == "\t" }) }
            .filter { !$0.isEmpty && !$0.hasPrefix("#") }
    }
}
