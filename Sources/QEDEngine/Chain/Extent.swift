/// A piece of a request: where it lies in which file of the chain.
struct Extent {
    /// Position in the chain, or `Extent.zeros`.
    var layer: Int32
    var byteCount: UInt32
    var fileOffset: UInt64
    var deviceOffset: UInt64

    static let zeros: Int32 = -1
}

/// A growing list of extents in memory that is reused; neighbours that continue each other are merged.
struct ExtentList: @unchecked Sendable {
    // SAFETY: owned by the queue (inline path) or by one slow request; never shared between threads.
    private let storage: UnsafeMutablePointer<Extent>
    private let capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        storage = .allocate(capacity: capacity)
    }

    func deallocate() { storage.deallocate() }

    subscript(index: Int) -> Extent {
        precondition(index >= 0 && index < count, "outside the list")
        return storage[index]
    }

    mutating func removeAll() { count = 0 }

    func hasCapacity(_ capacity: Int) -> Bool { self.capacity == capacity }

    /// Whether any of it lies in no file.
    var hasZeros: Bool {
        for index in 0..<count where storage[index].layer == Extent.zeros { return true }
        return false
    }

    /// Whether any of it lies in this file of the chain, beneath the image.
    func hasAny(of layer: Int) -> Bool {
        for index in 0..<count where Int(storage[index].layer) == layer && layer > 0 { return true }
        return false
    }

    /// - Returns: false when the list is full.
    @inline(__always)
    mutating func append(layer: Int32, fileOffset: UInt64, deviceOffset: UInt64, byteCount: UInt64) -> Bool {
        precondition(byteCount > 0 && layer >= Extent.zeros, "an extent of nothing, or in no file")
        if count > 0 {
            let last = storage + (count - 1)
            if last.pointee.layer == layer,
                last.pointee.deviceOffset &+ UInt64(last.pointee.byteCount) == deviceOffset,
                layer == Extent.zeros || last.pointee.fileOffset &+ UInt64(last.pointee.byteCount) == fileOffset,
                UInt64(last.pointee.byteCount) &+ byteCount <= ExtentList.largestExtentBytes
            {
                last.pointee.byteCount &+= UInt32(truncatingIfNeeded: byteCount)
                return true
            }
        }
        guard count < capacity, byteCount <= ExtentList.largestExtentBytes else { return false }
        storage[count] = Extent(
            layer: layer, byteCount: UInt32(truncatingIfNeeded: byteCount), fileOffset: fileOffset,
            deviceOffset: deviceOffset)
        count += 1
        return true
    }

    /// How far the list has been filled.
    struct Mark {
        fileprivate var count: Int
        fileprivate var lastByteCount: UInt32
    }

    var mark: Mark { Mark(count: count, lastByteCount: count > 0 ? storage[count - 1].byteCount : 0) }

    /// Takes away what was appended since `mark` was taken.
    mutating func rewind(to mark: Mark) {
        precondition(mark.count <= count, "the list was emptied since")
        count = mark.count
        if count > 0 { storage[count - 1].byteCount = mark.lastByteCount }
    }

    static let largestExtentBytes: UInt64 = 1 << 30
}

/// Lists for the tasks of a queue, so that a slow request allocates none: as many as were ever in use at once.
final class ExtentListPool: @unchecked Sendable {
    // SAFETY: touched by the queue's thread alone.
    private let capacity: Int
    private var free: [ExtentList] = []

    /// - Parameter capacity: of each list, in extents.
    init(capacity: Int) { self.capacity = capacity }

    deinit { for list in free { list.deallocate() } }

    func take() -> ExtentList {
        if let list = free.popLast() { return list }
        return ExtentList(capacity: capacity)
    }

    func giveBack(_ list: ExtentList) {
        var list = list
        list.removeAll()
        precondition(list.count == 0 && list.hasCapacity(capacity), "another pool's list")
        free.append(list)
    }
}
