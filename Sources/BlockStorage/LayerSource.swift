import IOURing
import Platform

/// Where the bytes of a layer come from: a file of this machine (`ImageFile`), or a base elsewhere. Only raw layers at the bottom
/// of a chain are anything but files.
public protocol LayerSource: AnyObject, Sendable {
    /// For people: a path, or an address.
    var path: String { get }
    /// Two sources with the same one are the same.
    var identity: FileIdentity { get }
    /// Its length when it was opened.
    var sizeBytes: UInt64 { get }
    /// As of `BaseStorage`.
    var tellsHolesTruly: Bool { get }

    /// What the queue of `ring` reads. The source must outlive it.
    func base(on ring: Ring) -> any BaseStorage

    /// Up to `byteCount` bytes; fewer where it ends. Blocks: for a few bytes, before serving.
    func readBytes(fileOffset: UInt64, byteCount: Int) throws(ImageFileError) -> [UInt8]

    /// As `BaseStorage.findData`. Blocks.
    func nextData(from fileOffset: UInt64) -> Range<UInt64>?
}

extension ImageFile: LayerSource {
    public func base(on ring: Ring) -> any BaseStorage { storage(on: ring) }

    public func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        FileStorage.nextData(in: descriptor, from: fileOffset)
    }
}
