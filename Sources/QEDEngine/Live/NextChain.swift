import QEDFormat
import SystemPackage

/// What an image's chain is to be from some moment on (`Image.replaceChain`): made beforehand, beside the queues.
///
/// The pages of the chain are made anew as they are needed: those of the old chain tell of files that are gone, or end where the
/// disk did.
public struct NextChain: Sendable {
    public let layers: [Layer]
    let bases: [BaseTables?]
    let resolved: ResolvedPages?

    private init(of image: Image, layers: [Layer], bases: [BaseTables?]) throws(Errno) {
        self.layers = layers
        self.bases = bases
        if let last = image.resolved {
            resolved = try ResolvedPages(chain: layers, budgetBytes: last.budgetBytes, wordLimit: last.wordLimit)
        } else {
            resolved = nil
        }
    }

    /// The chain without some of its files.
    /// - Parameters:
    ///   - removed: their positions; the image itself has 0.
    ///   - adopted: of the image behind them, as it is now: it has got what they had.
    /// - Throws: the errno of `mmap`.
    public static func of(
        _ image: Image, without removed: Range<Int>, over adopted: AdoptedTables
    ) throws(Errno) -> NextChain {
        precondition(removed.lowerBound > 0 && removed.upperBound < image.layers.count, "layers that the chain does not have")
        var layers = image.layers
        var bases = image.bases
        layers[removed.upperBound] = adopted.layer
        bases[removed.upperBound - 1] = adopted.tables
        layers.removeSubrange(removed)
        bases.removeSubrange((removed.lowerBound - 1)..<(removed.upperBound - 1))
        return try NextChain(of: image, layers: layers, bases: bases)
    }

    /// The chain without the file beneath the image, which has nothing but what the raw bottom of the chain has as well.
    /// - Throws: the errno of `mmap`.
    public static func of(_ image: Image, withoutKept layer: Int) throws(Errno) -> NextChain {
        precondition(image.layers.count == layer + 2 && layer == 1, "not between an image and the bottom of its chain")
        guard case .raw = image.layers[2] else { preconditionFailure("a QED image at the bottom") }
        return try NextChain(of: image, layers: [image.layers[0], image.layers[2]], bases: [image.bases[1]])
    }

    /// The image alone: it has everything that lay beneath it.
    /// - Throws: the errno of `mmap`.
    public static func of(onlyImage image: Image) throws(Errno) -> NextChain {
        try NextChain(of: image, layers: [image.layers[0]], bases: [])
    }

    /// The same chain, of which one file is written by somebody else: it may get clusters behind the end that it had.
    /// - Throws: the errno of `mmap`.
    public static func of(_ image: Image, layerGrows layer: Int) throws(Errno) -> NextChain {
        precondition(layer > 0 && layer < image.layers.count, "a layer that the chain does not have")
        var layers = image.layers
        var bases = image.bases
        if case .qed(let header, _) = layers[layer], let tables = bases[layer - 1] {
            layers[layer] = .qed(header: header, fileSizeBytes: NextChain.unknownFileSize)
            bases[layer - 1] = tables.ofGrowingFile(NextChain.unknownFileSize)
        }
        return try NextChain(of: image, layers: layers, bases: bases)
    }

    /// What reads there is nothing to be read fails all the same.
    private static let unknownFileSize: UInt64 = 1 << 62

    /// The chain of a larger disk.
    /// - Throws: the errno of `mmap`, or `invalidArgument` for a size that the image cannot have.
    public static func of(_ image: Image, grownTo sizeBytes: UInt64) throws(Errno) -> NextChain {
        guard case .qed(var header, let fileSizeBytes) = image.layers[0] else { preconditionFailure("the image must be QED") }
        precondition(sizeBytes >= header.imageSizeBytes, "a smaller disk")
        do throws(QEDFormatError) { try header.setImageSize(bytes: sizeBytes) } catch { throw .invalidArgument }
        var layers = image.layers
        layers[0] = .qed(header: header, fileSizeBytes: fileSizeBytes)
        return try NextChain(of: image, layers: layers, bases: image.bases)
    }
}

extension Image {
    /// How large the disk can become while it is served: bounded by its L1 table, and by what is held of that in memory.
    public var largestSizeBytes: UInt64 { top.largestSizeBytes }
}
