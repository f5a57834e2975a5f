import BlockStorage
import CSupport
import IOURing
import Platform
import SystemPackage

/// An export of an NBD server as the base of a chain: only read, and asked again where the server was away.
///
/// Any thread. Its connections end with the last reference.
public final class NBDExport: LayerSource, @unchecked Sendable {
    // SAFETY: what changes is locked.
    public let address: NBDAddress
    public let sizeBytes: UInt64
    public let identity: FileIdentity
    private let thread: ExportThread
    private let shape: ExportShape
    private let watch: Watch

    public static let usualSilence: UInt64 = 10_000_000_000

    /// What is told of an export that was opened.
    public enum Change: Sendable {
        /// Reads wait.
        case away(NBDFailure)
        case back
        /// It has another size now. Whatever is read fails, until it is the old one and a new server of the device looks.
        case another(sizeBytes: UInt64)
    }

    /// Connects, and waits for that.
    /// - Parameters:
    ///   - timeout: nanoseconds until a read fails that the server does not answer; nil: it waits.
    ///   - longestSilence: nanoseconds; a connection whose server owes something, and says nothing for so long, is made anew.
    public init(
        _ address: NBDAddress, timeout: UInt64?, longestSilence: UInt64 = NBDExport.usualSilence
    ) throws(NBDFailure) {
        let watch = Watch()
        do throws(Errno) {
            thread = try ExportThread(address, timeout: timeout, longestSilence: longestSilence) {
                watch.tell($0)
            }
        } catch {
            throw NBDFailure("this process gets no thread (\(error))")
        }
        switch watch.first() {
        case .success(let shape):
            self.shape = shape
        case .failure(let failure):
            thread.end()
            throw failure
        }
        (self.address, self.watch) = (address, watch)
        sizeBytes = shape.sizeBytes
        // With another size it is another one: what lies over it was made for this one.
        identity = FileIdentity(ofName: "\(address.text) \(shape.sizeBytes)")
    }

    deinit { thread.end() }

    /// - Parameter tell: called on the export's thread, once for each change.
    public func whenItChanges(_ tell: @escaping @Sendable (Change) -> Void) { watch.setTeller(tell) }

    public var path: String { address.text }
    public var tellsHolesTruly: Bool { shape.tellsExtents }

    public func base(on ring: Ring) -> any BaseStorage { NBDBase(export: self, ring: ring) }

    public func readBytes(fileOffset: UInt64, byteCount: Int) throws(ImageFileError) -> [UInt8] {
        let count = Int(min(UInt64(byteCount), sizeBytes - min(fileOffset, sizeBytes)))
        guard count > 0 else { return [] }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 1)
        defer { buffer.deallocate() }
        let result = ask(.read(into: buffer, byteCount: count, offset: fileOffset)).result
        guard result >= 0 else { throw .cannotRead(path: path, errno: Errno(rawValue: -result)) }
        return Array(UnsafeRawBufferPointer(start: buffer, count: count))
    }

    public func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        var search = DataSearch(from: fileOffset, sizeBytes: sizeBytes)
        while let work = search.next {
            guard shape.tellsExtents else { return nil }
            let (result, extents) = ask(work)
            guard result == 0, search.learn(extents) else { return nil }
        }
        return search.found
    }

    /// Asks, and waits for the answer.
    private func ask(_ work: ExportRequest.Work) -> (result: Int32, extents: [ExportExtent]) {
        let answer = Lock<(Int32, [ExportExtent])>((0, []))
        let descriptor = cs_eventfd()
        guard descriptor >= 0 else { return (descriptor, []) }
        defer { cs_close(descriptor) }
        thread.submit(
            ExportRequest(
                work: work,
                answer: .call { result, extents in
                    answer.withLock { $0 = (result, extents) }
                    cs_eventfd_signal(descriptor)
                }))
        cs_eventfd_wait(descriptor)
        let (result, extents) = answer.withLock { $0 }
        return (result, extents)
    }

    // MARK: - For its storages

    func submit(_ request: ExportRequest) { thread.submit(request) }

    func findData(from fileOffset: UInt64) async -> Range<UInt64>? {
        guard shape.tellsExtents else { return nil }
        var search = DataSearch(from: fileOffset, sizeBytes: sizeBytes)
        while let work = search.next {
            let (result, extents) = await withUnsafeContinuation { continuation in
                submit(ExportRequest(work: work, answer: .call { continuation.resume(returning: ($0, $1)) }))
            }
            guard result == 0, search.learn(extents) else { return nil }
        }
        return search.found
    }
}

/// Tells of changes, and waits for the first of them.
private final class Watch: @unchecked Sendable {
    // SAFETY: locked; the descriptor is used by one who waits and one who signals, and closed with the last reference.
    private struct State {
        var first: Result<ExportShape, NBDFailure>?
        var tell: (@Sendable (NBDExport.Change) -> Void)?
        var last: NBDExport.Change?
    }
    private let state = Lock(State())
    private let descriptor = cs_eventfd()

    deinit { cs_close(descriptor) }

    func tell(_ condition: ExportCondition) {
        let change: NBDExport.Change
        switch condition {
        case .opened(let shape): return setFirst(.success(shape))
        case .failed(let failure): return setFirst(.failure(failure))
        case .away(let failure): change = .away(failure)
        case .back: change = .back
        case .another(let sizeBytes): change = .another(sizeBytes: sizeBytes)
        }
        let tell = state.withLock { state in
            state.last = change
            return state.tell
        }
        tell?(change)
    }

    private func setFirst(_ result: Result<ExportShape, NBDFailure>) {
        state.withLock { $0.first = result }
        cs_eventfd_signal(descriptor)
    }

    func first() -> Result<ExportShape, NBDFailure> {
        while true {
            if let first = state.withLock({ $0.first }) { return first }
            cs_eventfd_wait(descriptor)
        }
    }

    func setTeller(_ tell: @escaping @Sendable (NBDExport.Change) -> Void) {
        let last = state.withLock { state in
            state.tell = tell
            return state.last
        }
        if let last { tell(last) }
    }
}
