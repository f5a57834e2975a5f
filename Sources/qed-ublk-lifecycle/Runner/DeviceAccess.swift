import CSupport
import Glibc
import Platform
import RealDisk
import Simulation
import Synchronization

/// Reads and writes of the judged sectors, each within the deadline.
enum DeviceAccess {
    static func path(_ id: Int) -> String { "/dev/ublkb\(id)" }

    /// All the judged sectors of a device.
    static func readAll(_ id: Int) throws(Breach) -> [UInt64] {
        let read = try Deadline.run("reading \(path(id))") { readSectors(path(id), isDirect: true) }
        guard let values = read.values else { throw Breach("reading \(path(id)): \(read.failure)") }
        return values
    }

    /// The judged sectors of what a conversion left.
    static func readRaw(_ path: String) throws(Breach) -> [UInt64] {
        let read = readSectors(path, isDirect: false)
        guard let values = read.values else { throw Breach("reading \(path): \(read.failure)") }
        return values
    }

    private static func readSectors(_ path: String, isDirect: Bool) -> (values: [UInt64]?, failure: String) {
        let descriptor: Int32
        if isDirect {
            let found = cs_find(path, 0)
            guard found >= 0 else { return (nil, text(-found)) }
            defer { close(found) }
            descriptor = cs_open_found(found, path, CS_OPEN_DIRECT)
            guard descriptor >= 0 else { return (nil, text(-descriptor)) }
        } else {
            descriptor = open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { return (nil, text(errno)) }
        }
        defer { close(descriptor) }
        let buffer = AlignedBuffer(byteCount: Layout.patchSectors * 512)
        var values: [UInt64] = []
        for patch in 0..<Layout.patchCount {
            let offset = off_t(Layout.offset(ofPatch: patch))
            let count = pread(descriptor, buffer.address, Layout.patchSectors * 512, offset)
            guard count == Layout.patchSectors * 512 else { return (nil, count < 0 ? text(errno) : "only \(count) bytes") }
            for sector in 0..<Layout.patchSectors { values.append(SectorValue.read(buffer.address + sector * 512)) }
        }
        return (values, "")
    }

    static func text(_ errno: Int32) -> String { String(cString: strerror(errno)) }
}

/// A write, or zeroes, of sectors of one patch.
struct SectorWrite: Sendable {
    var first: Int
    /// nil for zeroes.
    var values: [UInt64]
    var isZero = false

    var offset: Int {
        Layout.offset(ofPatch: first / Layout.patchSectors) + first % Layout.patchSectors * 512
    }

    /// - Returns: 0, or an errno.
    func perform(_ device: BlockDevice, _ buffer: AlignedBuffer) -> Int32 {
        if isZero { return device.zero(offset: offset, byteCount: values.count * 512) }
        for (index, value) in values.enumerated() { SectorValue.fill(buffer.address + index * 512, value) }
        return device.write(buffer.address, offset: offset, byteCount: values.count * 512)
    }
}

/// Writes one after the other, while the server may be killed.
final class Writer: @unchecked Sendable {
    // SAFETY: a result is set before `done` counts it.
    private let writes: [SectorWrite]
    private var results: [Int32]
    private let done = Atomic<Int>(0)
    private let started = Atomic<Int>(0)
    private let mustStop = Atomic<Bool>(false)
    private var work: Work<Int32>?

    init(_ device: BlockDevice, _ writes: [SectorWrite]) {
        self.writes = writes
        results = Array(repeating: -1, count: writes.count)
        work = Work { [self] in
            let buffer = AlignedBuffer(byteCount: Layout.patchSectors * 512)
            for index in writes.indices where !mustStop.load(ordering: .sequentiallyConsistent) {
                started.store(index + 1, ordering: .sequentiallyConsistent)
                results[index] = writes[index].perform(device, buffer)
                done.store(index + 1, ordering: .sequentiallyConsistent)
                if results[index] != 0 { return results[index] }
            }
            return 0
        }
    }

    /// After the write that is under way.
    func stop() { mustStop.store(true, ordering: .sequentiallyConsistent) }

    /// Whether it has ended within so many seconds.
    func hasEnded(within seconds: Double) -> Bool { work?.result(seconds: seconds) != nil }

    /// What has begun, in order, with whether it was acknowledged; nil where that is not known yet.
    var outcome: [(write: SectorWrite, result: Int32?)] {
        let known = done.load(ordering: .sequentiallyConsistent)
        return (0..<started.load(ordering: .sequentiallyConsistent)).map { (writes[$0], $0 < known ? results[$0] : nil) }
    }
}
