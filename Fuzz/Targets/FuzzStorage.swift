import BlockStorage
import FuzzImages
import IOURing
import SystemPackage

/// A file of the code under test, and the limits on what may be done to it.
final class FuzzFile: @unchecked Sendable {
    // SAFETY: one thread.
    var content: SparseFile
    /// The space of the disk: what would need more pages is refused with `noSpace`.
    static let pageLimit = 4096

    init(_ content: SparseFile) { self.content = content }

    func perform(_ operation: StorageOperation) -> Int32 {
        switch operation {
        case .read(let buffer, let byteCount, let fileOffset):
            guard isPossible(fileOffset, UInt64(byteCount)) else { return -Errno.invalidArgument.rawValue }
            return Int32(
                content.read(into: UnsafeMutableRawBufferPointer(start: buffer, count: Int(byteCount)), at: fileOffset))
        case .write(let buffer, let byteCount, let fileOffset):
            return write(UnsafeRawBufferPointer(start: buffer, count: Int(byteCount)), at: fileOffset)
        case .writeGathered(let vectors, let vectorCount, let fileOffset):
            var done = 0
            for index in 0..<Int(vectorCount) {
                let bytes = UnsafeRawBufferPointer(start: vectors[index].base, count: vectors[index].byteCount)
                let result = write(bytes, at: fileOffset + UInt64(done))
                if result < 0 { return done > 0 ? Int32(done) : result }
                done += Int(result)
            }
            return Int32(done)
        case .sync:
            return 0
        case .allocate(let fileOffset, let byteCount, let zeroed):
            guard !zeroed else { return -Errno.notSupported.rawValue }
            guard isPossible(fileOffset, byteCount) else { return -Errno.fileTooLarge.rawValue }
            if fileOffset + byteCount > content.length { content.setLength(fileOffset + byteCount) }
            return 0
        case .punchHole(let fileOffset, let byteCount), .zeroRange(let fileOffset, let byteCount):
            guard isPossible(fileOffset, byteCount), byteCount > 0 else { return -Errno.invalidArgument.rawValue }
            content.zero(from: fileOffset, byteCount: byteCount)
            return 0
        }
    }

    private func write(_ bytes: UnsafeRawBufferPointer, at fileOffset: UInt64) -> Int32 {
        guard isPossible(fileOffset, UInt64(bytes.count)) else { return -Errno.fileTooLarge.rawValue }
        guard content.pages.count < FuzzFile.pageLimit else { return -Errno.noSpace.rawValue }
        content.write(bytes, at: fileOffset)
        return Int32(bytes.count)
    }

    func setLength(_ sizeBytes: UInt64) -> Int32 {
        guard sizeBytes <= SparseFile.longest else { return -Errno.fileTooLarge.rawValue }
        content.setLength(sizeBytes)
        return 0
    }

    private func isPossible(_ fileOffset: UInt64, _ byteCount: UInt64) -> Bool {
        let (end, overflow) = fileOffset.addingReportingOverflow(byteCount)
        return !overflow && end <= SparseFile.longest
    }
}

/// What has been submitted and has not completed; and the bound on all of it.
final class FuzzIO: @unchecked Sendable {
    // SAFETY: one thread.
    struct Pending {
        var operation: StorageOperation
        var file: FuzzFile
        var token: CompletionToken
    }

    private(set) var pending: [Pending] = []
    /// Everything fails from now on, and touches no file: the process is about to end.
    var isDead = false
    private(set) var operationCount = 0
    private var chance: UInt64
    /// More than any input can rightly cause.
    static let operationLimit = 200_000

    init(seed: UInt64) { chance = seed }

    func submit(_ operation: StorageOperation, on file: FuzzFile, token: CompletionToken) {
        pending.append(Pending(operation: operation, file: file, token: token))
    }

    func countOperation() {
        operationCount += 1
        if operationCount > FuzzIO.operationLimit { fail("it does not end: \(operationCount) storage operations") }
    }

    /// Completes one of the operations, as the seed decides: its effect happens now.
    func completeOne() -> (token: CompletionToken, result: Int32) {
        countOperation()
        chance = chance &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let index = pending.count == 1 ? 0 : Int((chance >> 33) % UInt64(pending.count))
        let done = pending.remove(at: index)
        return (done.token, isDead ? -Errno.ioError.rawValue : done.file.perform(done.operation))
    }
}

struct FuzzStorage: Storage {
    let io: FuzzIO
    let file: FuzzFile
    let alignment = StorageAlignment.none

    func submit(_ operation: StorageOperation, token: CompletionToken) { io.submit(operation, on: file, token: token) }

    func setLength(_ sizeBytes: UInt64) async throws(StorageError) {
        io.countOperation()
        let result = io.isDead ? -Errno.ioError.rawValue : file.setLength(sizeBytes)
        guard result >= 0 else { throw StorageError(.setLength, errno: Errno(rawValue: -result)) }
    }

    let tellsHolesTruly = true

    func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        io.countOperation()
        let pageBytes = UInt64(SparseFile.pageBytes)
        let length = file.content.length
        guard fileOffset < length, let page = file.content.pageIndexes(from: fileOffset, to: length).first else {
            return max(length, fileOffset)..<max(length, fileOffset)
        }
        return max(page * pageBytes, fileOffset)..<min((page + 1) * pageBytes, length)
    }

    func length() async throws(StorageError) -> UInt64 { file.content.length }

    var nanoseconds: UInt64 { 0 }

    func pause(nanoseconds: UInt64) async {}
}
