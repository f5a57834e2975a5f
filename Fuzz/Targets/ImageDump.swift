import FuzzImages
import Glibc

/// The files that an input describes, on a disk, to be looked at with other programs.
enum ImageDump {
    /// Writes the image to `path`, and the files behind it to `path` with `.1` and `.2`.
    static func write(_ input: [UInt8], to path: String) {
        for (index, file) in ImageRecipe.decode(input).files.enumerated() {
            let name = index == 0 ? path : "\(path).\(index)"
            let descriptor = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
            guard descriptor >= 0 else { fail("cannot write to \(name)") }
            defer { close(descriptor) }
            for page in file.pageIndexes(from: 0, to: file.length) {
                let bytes = file.bytes(at: page * 4096, count: Int(min(4096, file.length - page * 4096)))
                guard pwrite(descriptor, bytes, bytes.count, off_t(page * 4096)) == bytes.count else {
                    fail("cannot write to \(name)")
                }
            }
            guard ftruncate(descriptor, off_t(file.length)) == 0 else { fail("\(name) cannot be \(file.length) bytes long") }
        }
    }

    /// - Returns: the bytes of a file.
    static func read(_ path: String) -> [UInt8] {
        guard let file = fopen(path, "rb") else { fail("cannot read \(path)") }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return Array(bytes[..<count])
    }
}
