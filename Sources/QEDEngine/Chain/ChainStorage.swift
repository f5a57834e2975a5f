import BlockStorage

/// A chain as one queue reaches it: the image's own file, which is written, and those beneath it, which may be anywhere.
///
/// The engine is made for one kind of image file, so that the way of most requests has no indirection; files beneath are of
/// whatever kind each is.
public struct ChainStorage<S: Storage>: Sendable {
    public var top: S
    /// In the chain's order.
    public var bases: [any BaseStorage]

    public init(top: S, bases: [any BaseStorage] = []) {
        self.top = top
        self.bases = bases
    }

    var count: Int { bases.count + 1 }

    /// Position 0 is the image itself.
    subscript(layer: Int) -> any BaseStorage { layer == 0 ? top : bases[layer - 1] }
}
