import Foundation
import TestSupport
import Testing

/// A name that an image has for its backing file, and what becomes of opening that.
struct BackingName: Sendable, CustomTestStringConvertible {
    /// Its row in the list of hostile images.
    let row: Int
    let name: [UInt8]
    /// Declared raw; otherwise it must be QED.
    var isRaw = true
    let outcome: Outcome

    enum Outcome: Sendable {
        /// The first 64 KiB read as this byte.
        case opened(UInt8)
        /// Exit status, and part of the sentence.
        case refused(Int32, String)
    }

    init(_ row: Int, _ name: String, isRaw: Bool = true, _ outcome: Outcome) {
        self.init(row, bytes: Array(name.utf8), isRaw: isRaw, outcome)
    }

    init(_ row: Int, bytes: [UInt8], isRaw: Bool = true, _ outcome: Outcome) {
        self.row = row
        name = bytes
        self.isRaw = isRaw
        self.outcome = outcome
    }

    var testDescription: String {
        "row \(row): \(String(decoding: name.prefix(60), as: UTF8.self)), \(isRaw ? "raw" : "not declared raw")"
    }
}

/// A directory with every kind of file that an image could name, and with others around it.
///
///     images/        the image that is opened, and:
///       base         raw, byte 1         base.qed     QED, byte 2
///       a:b          raw, byte 3         qcow2        no QED image
///       fifo, socket, sub/               in           a link to sub/inner (raw, byte 4)
///       out          a link to ../outside/secret     up      a link to ..
///       dangling, circle                 links to nothing and to itself
///     images-evil/secret, outside/secret   raw, byte 9
struct BackingScene {
    let directory: TemporaryDirectory
    var images: String { directory.path("images") }
    var image: String { "\(images)/image.qed" }

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["images", "images/sub", "images-evil", "outside"] { try directory.makeDirectory(name) }
        func raw(_ name: String, _ byte: UInt8) throws {
            try writeFile(directory.path(name), Array(repeating: byte, count: 65536))
        }
        try raw("images/base", 1)
        try raw("images/a:b", 3)
        try raw("images/sub/inner", 4)
        try raw("images-evil/secret", 9)
        try raw("outside/secret", 9)
        try writeFile(directory.path("images/short"), Array(repeating: 6, count: 1000))
        try writeFile(directory.path("images/qcow2"), [0x51, 0x46, 0x49, 0xfb] + Array(repeating: 7, count: 65532))
        var base = ImageBuilder.specimen()
        base.fill(cluster: 5, 2)
        try base.write(to: directory.path("images/base.qed"))
        try require(["mkfifo", "fifo"], in: images)
        try makeSocket("\(images)/socket")
        for (name, target) in [
            ("in", "sub/inner"), ("out", "../outside/secret"), ("up", ".."), ("dangling", "none"), ("circle", "circle"),
        ] {
            try FileManager.default.createSymbolicLink(atPath: "\(images)/\(name)", withDestinationPath: target)
        }
    }

    /// Makes the image that names the file.
    func makeImage(_ name: BackingName) throws {
        // Room for the longest name.
        var image = ImageBuilder.empty(clusterSize: 65536, tableSize: 4)
        image.setBackingFile(absolute(name.name), isRaw: name.isRaw)
        try image.write(to: self.image)
    }

    /// `DIR` at the start stands for the directory of all.
    private func absolute(_ name: [UInt8]) -> [UInt8] {
        name.starts(with: Array("DIR/".utf8)) ? Array(directory.path.utf8) + name.dropFirst(3) : name
    }

    func run(_ arguments: [String]) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    private func makeSocket(_ path: String) throws {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else { throw POSIXError(.EADDRNOTAVAIL) }
    }
}
