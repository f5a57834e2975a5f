/// The stores of a mapping log, in the order in which they were made: for a simulation, in which the process dies
/// between any two of them.
public final class StoreTrace {
    public struct Store: Sendable {
        /// In bytes, from the start of the log's memory.
        public var offset: Int
        public var value: UInt64
    }

    private var stores: [Store] = []

    public init() {}

    func note(_ offset: Int, _ value: UInt64) { stores.append(Store(offset: offset, value: value)) }

    /// What was stored since this was last asked.
    public func takeAll() -> [Store] {
        defer { stores.removeAll(keepingCapacity: true) }
        return stores
    }

    public var isEmpty: Bool { stores.isEmpty }
}
