import BlockStorage
import Dispatch
import IOURing
import SystemPackage

@testable import Simulation

/// A file on a simulated disk that does at once what it is asked, and whose power goes after so many changes.
final class CutFile: @unchecked Sendable {
    // SAFETY: one task uses it.
    let disk: SimulatedDisk
    /// How many more changes are performed; then the power is off.
    var changesLeft = Int.max
    private(set) var changes = 0

    init(_ bytes: [UInt8]) {
        disk = SimulatedDisk()
        bytes.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { disk.write(base, byteCount: bytes.count, at: 0) }
        }
        disk.makeAllDurable()
    }

    init(_ disk: SimulatedDisk) { self.disk = disk }

    /// What is left when the power is off: the disks that may be found, all of them or a sample.
    func survivors(_ random: inout SeededRandom) -> [CutFile] {
        var found: [CutFile] = []
        let survivor = SimulatedDisk()
        Survivors(of: disk, inFlight: [], tables: []).forEach(on: survivor, limit: 8, samples: 5, random: &random) {
            found.append(CutFile(survivor.copy()))
        }
        return found
    }

    func bytes(_ range: Range<UInt64>) -> [UInt8] {
        let range = range.clamped(to: 0..<disk.length)
        return [UInt8](unsafeUninitializedCapacity: range.count) { buffer, count in
            if let base = buffer.baseAddress { count = disk.read(into: base, byteCount: range.count, at: range.lowerBound) }
        }
    }

    func perform(_ operation: StorageOperation) -> Int32 {
        switch operation {
        case .read(let buffer, let byteCount, let fileOffset):
            return Int32(disk.read(into: buffer, byteCount: Int(byteCount), at: fileOffset))
        case .write(let buffer, let byteCount, let fileOffset):
            guard takeChange() else { return -Errno.ioError.rawValue }
            write(UnsafeRawBufferPointer(start: buffer, count: Int(byteCount)), at: fileOffset)
            return Int32(byteCount)
        case .punchHole(let fileOffset, let byteCount), .zeroRange(let fileOffset, let byteCount):
            guard takeChange() else { return -Errno.ioError.rawValue }
            disk.zero(byteCount: byteCount, at: fileOffset)
            return 0
        case .sync:
            guard takeChange() else { return -Errno.ioError.rawValue }
            disk.makeAllDurable()
            return 0
        case .writeGathered, .allocate: return -Errno.notSupported.rawValue
        }
    }

    /// Parts of sectors come to the disk with the rest of them, as they do from a page cache.
    private func write(_ source: UnsafeRawBufferPointer, at fileOffset: UInt64) {
        let start = fileOffset / 512 * 512
        let end = (fileOffset + UInt64(source.count) + 511) / 512 * 512
        var sectors = bytes(start..<end)
        sectors.append(contentsOf: repeatElement(0, count: Int(end - start) - sectors.count))
        sectors.withUnsafeMutableBytes { sectors in
            UnsafeMutableRawBufferPointer(rebasing: sectors[Int(fileOffset - start)...]).copyMemory(from: source)
            if let base = sectors.baseAddress { disk.write(base, byteCount: sectors.count, at: start) }
        }
    }

    func setLength(_ sizeBytes: UInt64) -> Bool {
        guard takeChange() else { return false }
        disk.setLength(sizeBytes)
        return true
    }

    private func takeChange() -> Bool {
        guard changesLeft > 0 else { return false }
        changesLeft -= 1
        changes += 1
        return true
    }
}

struct CutStorage: Storage {
    let file: CutFile
    let alignment = StorageAlignment.none

    func submit(_ operation: StorageOperation, token: CompletionToken) {
        token.resume(returning: file.perform(operation))
    }

    func setLength(_ sizeBytes: UInt64) async throws(StorageError) {
        guard file.setLength(sizeBytes) else { throw StorageError(.setLength, errno: .ioError) }
    }

    /// Wrong wherever there is something.
    func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        file.disk.length..<max(file.disk.length, fileOffset)
    }

    let tellsHolesTruly = false

    func length() async throws(StorageError) -> UInt64 { file.disk.length }

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
