import BlockStorage
import IOURing
import QEDEngine
import QEDFormat
import SystemPackage

/// An image served to the program that opened it, on the thread that opened it: for tools and tests.
///
/// It is the engine that serves devices, with one queue and without a device.
public final class LocalEngine: @unchecked Sendable {
    // SAFETY: used by the thread that made it.
    public let image: Image
    /// The open files, until the engine is closed: then they are closed, and their locks released.
    public private(set) var chain: [LayerFile]
    /// How often the kernel was entered.
    public private(set) var turns: UInt64 = 0
    @usableFromInline let driver: EngineDriver<FileStorage, RingLoop>

    /// Opens the image at `path` with its backing chain.
    /// - Throws: `ChainError`, `ImageOpenError`, or `Errno` where there is no io_uring.
    public convenience init(
        path: String, options: ImageOptions = ImageOptions(), depth: Int = 64, largestRequestBytes: Int = 1 << 20,
        caching: ImageFile.Caching = .directWherePossible, backingCaching: ImageFile.Caching = .buffered,
        locking: ChainLocking = .all, policy: BackingPolicy = .plainFiles
    ) throws {
        let chain = try ImageChain.open(
            path: path, isReadOnly: options.isReadOnly, caching: caching, backingCaching: backingCaching,
            locking: locking, policy: policy)
        try self.init(chain: chain, options: options, depth: depth, largestRequestBytes: largestRequestBytes)
    }

    /// Serves the files of a chain that is open already.
    /// - Throws: `ImageOpenError`, or `Errno` where there is no io_uring.
    public convenience init(chain: [LayerFile], options: ImageOptions, depth: Int, largestRequestBytes: Int) throws {
        try self.init(
            chain: chain, options: options, depth: depth, largestRequestBytes: largestRequestBytes,
            storages: { $0.storages(on: $1) })
    }

    /// - Parameter storages: how the queue is to reach the files.
    package init(
        chain: [LayerFile], options: ImageOptions, depth: Int, largestRequestBytes: Int,
        storages: ([LayerFile], Ring) -> ChainStorage<FileStorage>
    ) throws {
        if !options.isReadOnly, options.session == nil, case .qed(let header, _) = chain[0].layer,
            try !options.discardsLostSession && chain[0].file.hasUnfinishedSession(header)
        {
            throw ImageOpenError.unfinishedSession
        }
        let loop = try RingLoop(entries: 256, completionEntries: 4096)
        do {
            let storages = storages(chain, loop.ring)
            image = try loop.run { () throws(ImageOpenError) in
                try await Image.open(chain: chain.map(\.layer), storages: storages, options: options)
            }
            driver = EngineDriver(
                image: image, storages: storages, depth: depth, largestRequestBytes: largestRequestBytes, on: loop)
        } catch {
            loop.close()
            throw error
        }
        self.chain = chain
    }

    @inlinable @inline(__always)
    public var queue: EngineQueue<FileStorage> { driver.queue }

    /// Hands what is prepared to the kernel, and handles what has completed.
    public func turn(waits: Bool) {
        turns += 1
        driver.turn(waits: waits)
    }

    /// When a request was started, and others follow: its transfers begin now if the disk should not wait for them.
    @inlinable @inline(__always)
    public func submitEarly() { driver.loop.submitEarly() }

    /// Performs requests, as many at once as there are slots.
    /// - Returns: the result of each: 0 or a negative errno.
    public func perform(_ requests: [BlockRequest]) -> [Int32] {
        var results = [Int32](repeating: 0, count: requests.count)
        var requestOfSlot = [Int](repeating: -1, count: queue.depth)
        var freeSlots = Array((0..<queue.depth).reversed())
        var next = 0
        var pending = requests.count
        while pending > 0 {
            while next < requests.count, let slot = freeSlots.popLast() {
                requestOfSlot[slot] = next
                queue.start(slot, requests[next])
                submitEarly()
                next += 1
            }
            driver.loop.runReady()
            while let (slot, result) = queue.nextFinished() {
                results[requestOfSlot[slot]] = result
                freeSlots.append(slot)
                pending -= 1
            }
            if pending > 0 && (freeSlots.isEmpty || next == requests.count) { turn(waits: true) }
        }
        return results
    }

    /// Makes everything durable, trims the image, marks it as clean and ends the loop. No request is under way.
    public func close() throws {
        defer { letGo() }
        try driver.close()
    }

    /// Ends the loop and leaves the image as it is, as a crash would, but for what has been written already. No request is
    /// under way.
    public func abandon() {
        driver.stop()
        letGo()
    }

    private func letGo() {
        driver.loop.close()
        chain = []
    }
}
