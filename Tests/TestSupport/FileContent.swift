import Foundation

/// What is in a file, without its holes: for large files with little in them.
public struct FileContent: Equatable, Sendable {
    /// The pieces that are not all zeros, by their offset.
    public private(set) var pieces: [UInt64: Data] = [:]
    public private(set) var sizeBytes: UInt64 = 0
    private static let pieceBytes = 65536
    /// `SEEK_DATA`, which is not imported.
    private static let toData: Int32 = 3

    public init(of path: String) throws {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { throw POSIXError(.ENOENT) }
        defer { close(descriptor) }
        sizeBytes = UInt64(lseek(descriptor, 0, SEEK_END))
        var position = lseek(descriptor, 0, Self.toData)
        var piece = Data(count: Self.pieceBytes)
        while position >= 0 {
            let start = position / off_t(Self.pieceBytes) * off_t(Self.pieceBytes)
            let count = piece.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, start) }
            guard count > 0 else { throw POSIXError(.EIO) }
            if piece.prefix(count).contains(where: { $0 != 0 }) { pieces[UInt64(start)] = piece.prefix(count) }
            position = lseek(descriptor, start + off_t(count), Self.toData)
        }
    }
}
