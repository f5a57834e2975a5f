import Glibc

/// Reads a line from a pipe or a socket, byte by byte: nothing behind it is taken, and it waits for the end of the line.
/// - Returns: the line without its end; nil where there comes none, or a longer one.
package func readLine(from descriptor: Int32, limitBytes: Int) -> String? {
    var line: [UInt8] = []
    var byte: UInt8 = 0
    while line.count < limitBytes {
        let count = read(descriptor, &byte, 1)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return nil }
        if byte == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
        line.append(byte)
    }
    return nil
}
