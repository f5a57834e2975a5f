/// Paths on the command line.
enum PathArgument {
    /// - Throws: what is wrong with `text`, as the end of a sentence about it.
    static func parse(_ text: String) throws(PathArgumentError) -> String {
        guard !text.isEmpty else { throw .empty }
        guard text.utf8.last != UInt8(ascii: "/") else { throw .directory }
        // What stands for bytes that are not UTF-8 by the time arguments get here: it would be another file's name.
        guard !text.unicodeScalars.contains("\u{fffd}") else { throw .notUTF8 }
        return text
    }
}

enum PathArgumentError: Error, Equatable, CustomStringConvertible {
    case empty
    case directory
    case notUTF8

    var description: String {
        switch self {
        case .empty: "a file name is needed"
        case .directory: "it names a directory, and a file is needed"
        case .notUTF8: "only file names that are valid UTF-8 are supported"
        }
    }
}
