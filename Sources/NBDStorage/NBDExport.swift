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
    private let watch: ExportWatch

    public static let usualSilence: UInt64 = 10_000_000_000
    /// So long is waited for an export that can be opened without an answer. Nanoseconds.
    public static let usualPatience: UInt64 = 3_000_000_000

    /// What is told of an export that was opened.
    public enum Change: Sendable {
        /// Reads wait.
        case away(NBDFailure)
        case back
        /// It has another size now. Whatever is read fails, until it is the old one and a new server of the device looks.
        case another(sizeBytes: UInt64)
    }

    /// That it cannot be read, and why.
    public struct Absence: Sendable {
        /// Seconds since 1970.
        public var since: Int64
        public var reason: String
        /// It has another size now: reads fail, and do not wait.
        public var isAnother: Bool
    }

    /// Connects, and waits for that.
    /// - Parameters:
    ///   - sizeBytes: nil: what the server says. Of an export that was open before, its size: where it cannot be reached it is
    ///     open all the same, away from the beginning; where it has another size now this one has that, and answers nothing.
    ///   - isQuick: the first byte can be read as soon as there can be one, and where holes are is known a little later. For
    ///     others that is known from the beginning, where the server tells it.
    ///   - timeout: nanoseconds until a read fails that the server does not answer; nil: it waits.
    ///   - longestSilence: nanoseconds; a connection whose server owes something, and says nothing for so long, is made anew.
    ///   - patience: nanoseconds; an export of known size that says nothing for so long is away.
    /// - Throws: only where the size is not known, or there is no thread.
    public init(
        _ address: NBDAddress, known sizeBytes: UInt64? = nil, isQuick: Bool = false, timeout: UInt64?,
        longestSilence: UInt64 = NBDExport.usualSilence, patience: UInt64 = NBDExport.usualPatience
    ) throws(NBDFailure) {
        let watch = ExportWatch()
        do throws(Errno) {
            thread = try ExportThread(
                address, known: sizeBytes, isQuick: isQuick, timeout: timeout, longestSilence: longestSilence
            ) { watch.tell($0) }
        } catch {
            throw NBDFailure("this process gets no thread (\(error))")
        }
        do throws(NBDFailure) {
            self.sizeBytes = try watch.findSize(known: sizeBytes, patienceNanoseconds: patience)
        } catch {
            thread.end()
            throw error
        }
        (self.address, self.watch) = (address, watch)
        // With another size it is another one: what lies over it was made for this one.
        identity = FileIdentity(ofName: "\(address.text) \(self.sizeBytes)")
    }

    deinit { thread.end() }

    /// - Parameter tell: called on the export's thread, once for each change.
    public func whenItChanges(_ tell: @escaping @Sendable (Change) -> Void) { watch.setTeller(tell) }

    /// Has all that is asked, and waits, fail; or be answered again. Any thread.
    public func failReads(_ fails: Bool) { thread.inbox.wish { $0.isFailing = fails } }

    /// From now on what waits for a server that is away is answered with -ECANCELED: somebody else will ask. What the server has
    /// been asked for it answers. Any thread.
    public func leaveReads() { thread.inbox.wish { $0.isLeaving = true } }

    /// Nil: it was there when it was last looked at.
    public var absence: Absence? { watch.absence }

    public var path: String { address.text }
    /// False as long as nobody has said yet: it was away from the beginning, or is opened quickly. True, it stays true.
    public var tellsHolesTruly: Bool { watch.tellsExtents }

    public func base(on ring: Ring) -> any BaseStorage { NBDBase(export: self, ring: ring) }

    public func readBytes(fileOffset: UInt64, byteCount: Int) throws(ImageFileError) -> [UInt8] {
        let count = Int(min(UInt64(byteCount), sizeBytes - min(fileOffset, sizeBytes)))
        guard count > 0 else { return [] }
        // Whoever wants a few bytes of the beginning is about to want others, and each would be a round trip.
        let beginning = UInt64(ExportThread.beginningBytes)
        var range = fileOffset..<fileOffset + UInt64(count)
        if range.upperBound <= beginning, beginning <= sizeBytes { range = 0..<beginning }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: range.count, alignment: 1)
        defer { buffer.deallocate() }
        let result = ask(.read(into: buffer, byteCount: range.count, offset: range.lowerBound)).result
        guard result >= 0 else { throw .cannotRead(path: path, errno: Errno(rawValue: -result)) }
        return Array(UnsafeRawBufferPointer(start: buffer + Int(fileOffset - range.lowerBound), count: count))
    }

    public func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        var search = DataSearch(from: fileOffset, sizeBytes: sizeBytes)
        while let work = search.next {
            guard tellsHolesTruly else { return nil }
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
        thread.inbox.submit(
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

    func submit(_ request: ExportRequest) { thread.inbox.submit(request) }

    func findData(from fileOffset: UInt64) async -> Range<UInt64>? {
        guard tellsHolesTruly else { return nil }
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
