import Glibc
import SystemPackage

/// A file of text that others read at any moment: they find the old content or the new one, and nothing between.
enum TextFile {
    /// Not durable: it is written again before long.
    static func replace(_ path: String, with text: String) throws(TextFileError) {
        // Beside it, under a name that its readers leave alone.
        let temporary = "\(path).\(getpid()).new"
        do {
            // Of one that was killed, and had this number.
            unlink(temporary)
            let descriptor = try FileDescriptor.open(
                FilePath(temporary), .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec],
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
            do {
                // Whatever the umask: others read it.
                fchmod(descriptor.rawValue, 0o644)
                try descriptor.closeAfter { _ = try descriptor.writeAll(text.utf8) }
                guard rename(temporary, path) == 0 else { throw Errno(rawValue: errno) }
            } catch {
                unlink(temporary)
                throw error
            }
        } catch {
            throw TextFileError(path: path, errno: error as? Errno ?? .ioError)
        }
    }
}

/// A file that was not replaced; what was there is as it was.
struct TextFileError: Error, CustomStringConvertible {
    let path: String
    let errno: Errno

    var description: String { "\(path): cannot be written: \(errno)" }
}
