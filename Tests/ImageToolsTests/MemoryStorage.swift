import BlockStorage
import Dispatch
import IOURing
import SystemPackage
import TestSupport

/// A file in memory that loses power: every write since the last sync survives or not, sector by sector.
final class MemoryFile: @unchecked Sendable {
    // SAFETY: one task uses it.
    private(set) var current: [UInt8]
    private var durable: [UInt8]
    /// Sectors written since the last sync; those of a punched hole too.
    private var unsynced: Set<Int> = []
    /// How many more changes are performed; then the power is off.
    var changesLeft = Int.max
    private(set) var changes = 0

    private static let sector = 512

    init(_ bytes: [UInt8]) {
        current = bytes
        durable = bytes
    }

    var isOff: Bool { changesLeft == 0 }

    /// What a power cut could leave: each unsynced sector in its old or its new state, and the old length or the new
    /// one.
    func survivor(_ random: inout SeededNumbers, keeping share: Double) -> [UInt8] {
        let keepsLength = Double.random(in: 0..<1, using: &random) < share
        var bytes = durable
        if keepsLength { MemoryFile.resize(&bytes, current.count) }
        for sector in unsynced.sorted() where Double.random(in: 0..<1, using: &random) < share {
            let start = sector * MemoryFile.sector
            let end = min(start + MemoryFile.sector, current.count)
            guard start < end else { continue }
            if bytes.count < end { MemoryFile.resize(&bytes, end) }
            bytes.replaceSubrange(start..<end, with: current[start..<end])
        }
        return bytes
    }

    func perform(_ operation: StorageOperation) -> Int32 {
        switch operation {
        case .read(let buffer, let byteCount, let fileOffset):
            guard fileOffset < current.count else { return 0 }
            let end = min(Int(fileOffset) + Int(byteCount), current.count)
            current[Int(fileOffset)..<end].withUnsafeBytes { bytes in
                if let base = bytes.baseAddress { buffer.copyMemory(from: base, byteCount: bytes.count) }
            }
            return Int32(end - Int(fileOffset))
        case .write(let buffer, let byteCount, let fileOffset):
            guard takeChange() else { return -Errno.ioError.rawValue }
            let range = Int(fileOffset)..<(Int(fileOffset) + Int(byteCount))
            if current.count < range.upperBound { MemoryFile.resize(&current, range.upperBound) }
            current.replaceSubrange(range, with: UnsafeRawBufferPointer(start: buffer, count: Int(byteCount)))
            mark(range)
            return Int32(byteCount)
        case .punchHole(let fileOffset, let byteCount), .zeroRange(let fileOffset, let byteCount):
            guard takeChange() else { return -Errno.ioError.rawValue }
            let range = Int(fileOffset)..<min(Int(fileOffset + byteCount), current.count)
            current.replaceSubrange(range, with: repeatElement(0, count: range.count))
            mark(range)
            return 0
        case .sync:
            guard takeChange() else { return -Errno.ioError.rawValue }
            durable = current
            unsynced = []
            return 0
        case .writeGathered, .allocate: return -Errno.notSupported.rawValue
        }
    }

    func setLength(_ sizeBytes: UInt64) -> Bool {
        guard takeChange() else { return false }
        MemoryFile.resize(&current, Int(sizeBytes))
        return true
    }

    private func takeChange() -> Bool {
        guard changesLeft > 0 else { return false }
        changesLeft -= 1
        changes += 1
        return true
    }

    private func mark(_ range: Range<Int>) {
        guard !range.isEmpty else { return }
        unsynced.formUnion(range.lowerBound / MemoryFile.sector...(range.upperBound - 1) / MemoryFile.sector)
    }

    private static func resize(_ bytes: inout [UInt8], _ count: Int) {
        if bytes.count > count {
            bytes.removeLast(bytes.count - count)
        } else {
            bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
        }
    }
}

struct MemoryStorage: Storage {
    let file: MemoryFile
    let alignment = StorageAlignment.none

    func submit(_ operation: StorageOperation, token: CompletionToken) {
        token.resume(returning: file.perform(operation))
    }

    func setLength(_ sizeBytes: UInt64) async throws(StorageError) {
        guard file.setLength(sizeBytes) else { throw StorageError(.setLength, errno: .ioError) }
    }

    /// Wrong wherever there is something.
    func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        UInt64(file.current.count)..<max(UInt64(file.current.count), fileOffset)
    }

    let tellsHolesTruly = false

    func length() async throws(StorageError) -> UInt64 { UInt64(file.current.count) }

    var nanoseconds: UInt64 { 0 }

    func pause(nanoseconds: UInt64) async {}
}

/// Runs tasks one at a time, as the thread of a ring does.
final class OneThread: TaskExecutor {
    private let queue = DispatchQueue(label: "tools")

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
