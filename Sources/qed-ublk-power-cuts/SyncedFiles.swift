import Glibc

/// What keeps the program from testing, or a write that fails while the power is on: the test has failed.
struct ProgramFailure: Error, CustomStringConvertible {
    var description: String

    init(_ sentence: String) { description = sentence }
    init(_ attempt: String, _ errno: Int32) { description = "cannot \(attempt): \(String(cString: strerror(errno)))" }
}

func readFile(_ path: String) throws(ProgramFailure) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw ProgramFailure("open \(path)", errno) }
    defer { close(descriptor) }
    var content: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = read(descriptor, &piece, piece.count)
        guard count >= 0 else { throw ProgramFailure("read \(path)", errno) }
        if count == 0 { return content }
        content += piece[..<count]
    }
}

/// Writes a file, new or in place of what it held, and syncs it.
func writeFile(_ path: String, _ content: [UInt8]) throws(ProgramFailure) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw ProgramFailure("open \(path)", errno) }
    defer { close(descriptor) }
    var written = 0
    while written < content.count {
        let count = content[written...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard count > 0 else { throw ProgramFailure("write \(path)", errno) }
        written += count
    }
    guard fsync(descriptor) == 0 else { throw ProgramFailure("sync \(path)", errno) }
}

/// Makes the names in a folder durable.
func syncFolder(_ path: String) throws(ProgramFailure) {
    let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw ProgramFailure("open \(path)", errno) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw ProgramFailure("sync \(path)", errno) }
}
