import BlockStorage
import FuzzImages
import IOURing
import QEDEngine
import QEDFormat
import SystemPackage

/// The engine over files in memory: opened, asked, closed.
final class OpenImage {
    enum Refusal {
        case header(QEDFormatError)
        case image(ImageOpenError)
    }

    let bench: Workbench
    let image: Image
    private let driver: EngineDriver<FuzzStorage, Workbench>
    private var queue: EngineQueue<FuzzStorage> { driver.queue }
    static let depth = 8
    static let largestRequestBytes = 1 << 18

    private init(bench: Workbench, image: Image, queue: EngineQueue<FuzzStorage>) {
        self.bench = bench
        self.image = image
        driver = EngineDriver(queue, on: bench)
    }

    /// The layers of the chain, as they are told apart before the engine sees them.
    static func layers(_ files: [FuzzFile], isRaw: [Bool]) -> Result<[Layer], QEDFormatError> {
        var layers: [Layer] = []
        for (file, isRaw) in zip(files, isRaw) {
            let length = file.content.length
            if isRaw {
                layers.append(.raw(sizeBytes: length))
                continue
            }
            do throws(QEDFormatError) {
                let start = file.content.bytes(at: 0, count: Int(min(length, UInt64(QEDLimits.headerSizeBytes))))
                layers.append(.qed(header: try QEDHeader(parsing: start, fileSizeBytes: length), fileSizeBytes: length))
            } catch {
                return .failure(error)
            }
        }
        return .success(layers)
    }

    static func open(
        _ files: [FuzzFile], isRaw: [Bool], isReadOnly: Bool, bench: Workbench, session: SessionMemory? = nil
    ) -> Result<OpenImage, RefusalError> {
        let chain: [Layer]
        switch layers(files, isRaw: isRaw) {
        case .failure(let error): return .failure(RefusalError(refusal: .header(error)))
        case .success(let layers): chain = layers
        }
        let storages = ChainStorage(top: bench.storage(files[0]), bases: files.dropFirst().map { bench.storage($0) })
        let options = ImageOptions(isReadOnly: isReadOnly, cacheBytes: 1 << 16, session: session)
        let opened = bench.run("opening") { () async throws(ImageOpenError) in
            try await Image.open(chain: chain, storages: storages, options: options)
        }
        switch opened {
        case .failure(let error):
            return .failure(RefusalError(refusal: .image(error)))
        case .success(let image):
            let queue = EngineQueue(
                image: image, storages: storages, depth: depth, largestRequestBytes: largestRequestBytes,
                executor: bench.executor)
            return .success(OpenImage(bench: bench, image: image, queue: queue))
        }
    }

    struct RefusalError: Error {
        var refusal: Refusal
    }

    /// Performs requests side by side, at most `depth` of them.
    /// - Returns: the result of each.
    func perform(_ requests: [BlockRequest]) -> [Int32] {
        var results = [Int32](repeating: 0, count: requests.count)
        for (slot, request) in requests.enumerated() { queue.start(slot, request) }
        var pending = requests.count
        while pending > 0 {
            while let (slot, result) = queue.nextFinished() {
                results[slot] = result
                pending -= 1
            }
            if pending > 0 { driver.turn(waits: true) }
        }
        return results
    }

    func read(_ deviceOffset: UInt64, byteCount: Int) -> Result<[UInt8], Errno> {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { buffer.deallocate() }
        let result = perform(
            [.init(.read, deviceOffset: deviceOffset, byteCount: UInt64(byteCount), buffer: buffer.baseAddress)])[0]
        return result == 0 ? .success(Array(buffer)) : .failure(Errno(rawValue: -result))
    }

    /// Lets time pass.
    func tick(milliseconds: UInt64) {
        queue.tick(milliseconds)
        settle()
    }

    /// Turn after turn, until nothing is under way. There are no requests.
    func settle() {
        repeat { driver.turn(waits: bench.isBusy) } while bench.isBusy
    }

    /// Closes the image in good order.
    func close() -> RequestError? {
        settle()
        let queue = self.queue
        let result = bench.run("closing", inline: queue.storageCompleted) { () async throws(RequestError) in
            try await queue.close()
        }
        takeDown()
        if case .failure(let error) = result { return error }
        return nil
    }

    /// Ends all tasks without touching the files any more, as a crash would.
    func takeDown() {
        bench.io.isDead = true
        driver.stop()
        bench.io.isDead = false
    }
}
