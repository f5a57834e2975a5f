import BlockStorage
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// A range of a disk that is of one kind.
public struct DiskExtent: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        /// The bytes lie in a file of the chain.
        case data
        /// Zeros: a zero cluster, or a hole in a raw file.
        case zero
        /// Zeros, because no file of the chain has anything here.
        case unallocated
    }

    /// First byte of the disk, and how many.
    public var start: UInt64
    public var length: UInt64
    public var kind: Kind
    /// Position in the chain of the file that decides: 0 is the image itself.
    public var depth: Int
    /// Where the bytes, or the hole, lie in that file.
    public var fileOffset: UInt64?

    public var end: UInt64 { start + length }

    /// Whether `next` says of its range what this one says, and continues it in the file too.
    func continues(with next: DiskExtent) -> Bool {
        guard kind == next.kind, depth == next.depth, end == next.start else { return false }
        switch (fileOffset, next.fileOffset) {
        case (nil, nil): return true
        case (let mine?, let its?): return mine + length == its
        default: return false
        }
    }
}

/// Answers, for any place of a disk, which file of its chain has the bytes.
///
/// Reads tables through the page cache, a piece at a time; blocks. What is written to the disk meanwhile may be seen or
/// not.
public final class DiskMap {
    private let layers: [any MapLayer]
    /// A multiple of 512.
    public let sizeBytes: UInt64
    /// Paths of the files, the image's own first.
    public let paths: [String]
    private let identities: [FileIdentity]

    init(chain: [LayerFile]) throws(ImageToolError) {
        var layers: [any MapLayer] = []
        for link in chain {
            switch link.layer {
            case .qed(let header, _): layers.append(try QEDMapLayer(file: link.file, header: header))
            case .raw: layers.append(try RawMapLayer(link.source))
            }
        }
        self.layers = layers
        sizeBytes = layers[0].sizeBytes
        paths = chain.map(\.source.path)
        identities = chain.map(\.source.identity)
    }

    init(raw file: ImageFile) throws(ImageToolError) {
        layers = [try RawMapLayer(file)]
        sizeBytes = layers[0].sizeBytes
        paths = [file.path]
        identities = [file.identity]
    }

    /// Opens a disk only to be mapped.
    public static func open(
        path: String, format: DiskFormat, sharing: Bool, policy: BackingPolicy = .plainFiles
    ) throws(ImageToolError) -> DiskMap {
        switch format {
        case .raw:
            return try DiskMap(
                raw: try ImageFile.openedForTool(path, .readOnly, sharing: sharing, allowBlockDevice: true))
        case .qed:
            let chain: [LayerFile]
            do throws(ChainError) {
                chain = try ImageChain.open(
                    path: path, isReadOnly: true, caching: .buffered, locking: sharing ? .none : .all, policy: policy)
            } catch {
                throw .chain(error)
            }
            return try DiskMap(chain: chain)
        }
    }

    /// The position in the chain of the file that a path names; nil where it is none of them.
    public func depth(ofFileAt path: String) -> Int? {
        FileIdentity(ofFileAt: path).flatMap { identities.firstIndex(of: $0) }
    }

    /// What is at `start`, as far as it is of one kind within `limit`.
    public func extent(at start: UInt64, limit: UInt64) throws(ImageToolError) -> DiskExtent {
        precondition(start < limit && limit <= sizeBytes, "outside the disk")
        var length = limit - start
        for (depth, layer) in layers.enumerated() {
            let piece = try layer.piece(at: start, length: length)
            length = piece.length
            switch piece.kind {
            case .data:
                return DiskExtent(start: start, length: length, kind: .data, depth: depth, fileOffset: piece.fileOffset)
            case .zero:
                return DiskExtent(start: start, length: length, kind: .zero, depth: depth, fileOffset: piece.fileOffset)
            case .unallocated: break
            }
            let below = depth + 1 < layers.count ? layers[depth + 1].sizeBytes : 0
            if start >= below {
                return DiskExtent(start: start, length: length, kind: .unallocated, depth: depth, fileOffset: nil)
            }
            length = min(length, below - start)
        }
        preconditionFailure("the last layer has nothing below it")
    }

    /// Goes through a range in order, neighbours that continue each other merged.
    public func forEachExtent(
        in range: Range<UInt64>? = nil, _ body: (DiskExtent) throws(ImageToolError) -> Void
    ) throws(ImageToolError) {
        let range = range ?? 0..<sizeBytes
        var position = range.lowerBound
        var last: DiskExtent?
        while position < range.upperBound {
            let next = try extent(at: position, limit: range.upperBound)
            position = next.end
            if let previous = last, previous.continues(with: next) {
                last?.length += next.length
            } else {
                if let previous = last { try body(previous) }
                last = next
            }
        }
        if let last { try body(last) }
    }
}

/// One file of a chain, asked about a place of the disk.
protocol MapLayer {
    /// A multiple of 512.
    var sizeBytes: UInt64 { get }
    /// What the file says of the beginning of a range that lies within its size.
    func piece(at start: UInt64, length: UInt64) throws(ImageToolError) -> MapPiece
}

struct MapPiece {
    var kind: DiskExtent.Kind
    var length: UInt64
    var fileOffset: UInt64?
}
