import BlockStorage
import Foundation
import QEDEngine
import QEDFormat
import Simulation
import TestSupport
import Testing

@testable import ImageTools

/// Every tool that changes tables, cut short at every one of its writes.
@Suite struct PowerCutTests {
    let scratch: TemporaryDirectory
    private let thread = OneThread()
    var image: String { scratch.path("image.qed") }

    init() throws { scratch = try TemporaryDirectory() }

    typealias Structure = ImageStructure<CutStorage>

    private func structure(_ file: CutFile) throws -> Structure {
        let header = try QEDHeader(parsing: file.bytes(0..<64), fileSizeBytes: file.disk.length)
        return Structure(storage: CutStorage(file: file), header: header, fileSizeBytes: file.disk.length)
    }

    /// An image of small clusters with data, some of it not where it could be.
    private func makeImage() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", "cluster_size=4096,table_size=2", image, "12M"])
        try qemuIO(
            image, "write -P 1 0 40k", "write -P 2 4M 40k", "write -P 3 8M 8k", "write -P 4 100k 20k",
            "write -P 5 9M 8k",
            "write -P 6 60k 8k")
    }

    /// What the guest reads, by entries that can be followed: cluster by cluster.
    private func content(_ structure: Structure) async throws -> [UInt64: [UInt8]] {
        var content: [UInt64: [UInt8]] = [:]
        let bounds = structure.bounds
        let file = structure.storage.file
        let buffer = PageBuffer(byteCount: structure.tablePieceBytes)
        var holes = TableHoles()
        for (index, value) in try await structure.readL1().enumerated() {
            guard case .allocated = bounds.l1Entry(value) else { continue }
            try await structure.visitTable(
                index, at: value, through: buffer.address, pieceBytes: buffer.byteCount, holes: &holes
            ) {
                (entries, _, deviceOffset) async throws(StorageError) in
                for (position, entry) in entries.enumerated() {
                    let place = deviceOffset + UInt64(position) * 4096
                    guard case .allocated(let fileOffset) = bounds.l2Entry(entry),
                        place < structure.header.imageSizeBytes
                    else { continue }
                    let bytes = file.bytes(fileOffset..<(fileOffset + 4096))
                    if bytes.contains(where: { $0 != 0 }) { content[place] = bytes }
                }
            }
        }
        return content
    }

    /// Performs `work` with the power cut after each of its changes, and hands what is left to `verify`; runs it again
    /// then.
    private func cut(
        _ bytes: [UInt8], _ work: (Structure) async throws -> Void,
        verify: (Structure, _ isFinished: Bool) async throws -> Void
    ) async throws {
        try await withTaskExecutorPreference(thread) { try await cutOnOneThread(bytes, work, verify: verify) }
    }

    /// All tasks of a tool share the thread of its storage.
    private func cutOnOneThread(
        _ bytes: [UInt8], _ work: (Structure) async throws -> Void,
        verify: (Structure, _ isFinished: Bool) async throws -> Void
    ) async throws {
        let whole = CutFile(bytes)
        try await work(try structure(whole))
        try await verify(try structure(whole), true)
        #expect(whole.changes > 1)
        var random = SeededRandom(seed: UInt64(whole.changes))
        for changes in 0..<whole.changes {
            let file = CutFile(bytes)
            file.changesLeft = changes
            await #expect(throws: (any Error).self) { try await work(try structure(file)) }
            for survivor in file.survivors(&random) {
                try await verify(try structure(survivor), false)
                try await work(try structure(survivor))
                try await verify(try structure(survivor), true)
            }
        }
    }

    private func expectSound(_ structure: Structure) async throws {
        let pass = try CheckPass(structure, mode: .fast)
        try await pass.run()
        #expect(pass.report.isSound, "\(pass.report)")
    }

    @Test func shrink() async throws {
        try makeImage()
        let size: UInt64 = 4 << 20 + 10_752
        let before = try await content(try structure(CutFile(try readFile(image))))
        let kept = before.filter { $0.key < size }
        try await cut(try readFile(image)) { structure in
            try await ImageResize.shrink(structure, to: size)
        } verify: { structure, isFinished in
            try await expectSound(structure)
            let now = try await content(structure)
            if structure.header.imageSizeBytes != size {
                #expect(!isFinished && now == before)
            } else {
                #expect(Set(now.keys) == Set(kept.keys))
                for (place, bytes) in kept where place + 4096 <= size { #expect(now[place] == bytes) }
                let last = size / 4096 * 4096
                #expect(now[last]?.prefix(Int(size - last)) == kept[last]?.prefix(Int(size - last)))
                if isFinished { #expect(now[last]?.suffix(Int(4096 - (size - last))).allSatisfy { $0 == 0 } == true) }
            }
        }
    }

    @Test func compact() async throws {
        try makeImage()
        let editor = try ImageEditor(image)
        for entry in [2, 3, 5, 26] { try editor.setL2Entry(0, entry, 0) }
        try editor.setL2Entry(1, 4, 0)
        let before = try await content(try structure(CutFile(try readFile(image))))
        try await cut(try readFile(image)) { structure in
            _ = try await ImageCompaction.compact(structure)
        } verify: { structure, isFinished in
            try await expectSound(structure)
            #expect(try await content(structure) == before)
            if isFinished {
                let pass = try CheckPass(structure, mode: .fast)
                try await pass.run()
                #expect(pass.report.leakedClusters == 0)
            }
        }
    }

    /// Over a backing file zeros must stay zeros, at every moment.
    @Test("compaction of zeros", arguments: [false, true])
    func compactZeros(hasBackingFile: Bool) async throws {
        try makeImage()
        try qemuIO(image, "write -P 0 4M 20k", "write -P 0 8M 8k", "write -P 0 60k 8k", "write -P 7 10M 4k", "write -P 0 11M 80k")
        if hasBackingFile { try require(["qemu-img", "rebase", "-u", "-f", "qed", "-b", "x", "-F", "raw", image]) }
        let bytes = try readFile(image)
        let before = try await content(try structure(CutFile(bytes)))
        let entries = try await entries(try structure(CutFile(bytes)))
        try await cut(bytes) { structure in
            _ = try await ImageCompaction.compact(structure)
        } verify: { structure, isFinished in
            try await expectSound(structure)
            #expect(try await content(structure) == before)
            let now = try await self.entries(structure)
            for (place, value) in entries where value != 0 && before[place] == nil {
                let replaced: UInt64 = hasBackingFile ? 1 : 0
                let entry = now[place] ?? 0
                #expect(isFinished ? entry == replaced : entry == replaced || entry > 1, "\(place)")
            }
            if isFinished {
                let pass = try CheckPass(structure, mode: .fast)
                try await pass.run()
                #expect(pass.report.leakedClusters == 0)
            }
        }
    }

    /// The L2 entries that are not 0, by what part of the disk they are about.
    private func entries(_ structure: Structure) async throws -> [UInt64: UInt64] {
        var found: [UInt64: UInt64] = [:]
        let buffer = PageBuffer(byteCount: structure.tablePieceBytes)
        var holes = TableHoles()
        for (index, value) in try await structure.readL1().enumerated() where value != 0 {
            try await structure.visitTable(
                index, at: value, through: buffer.address, pieceBytes: buffer.byteCount, holes: &holes
            ) {
                (entries, _, deviceOffset) async throws(StorageError) in
                for (position, entry) in entries.enumerated() where entry != 0 {
                    found[deviceOffset + UInt64(position) * 4096] = UInt64(littleEndian: entry)
                }
            }
        }
        return found
    }

    @Test("repairs", arguments: [false, true])
    func repair(separates: Bool) async throws {
        try makeImage()
        let editor = try ImageEditor(image)
        try editor.setL2Entry(0, 3, 12345)
        try editor.setL2Entry(1, 4, 1 << 40)
        try editor.setL2Entry(2, 1, 0)
        if separates {
            try editor.setL2Entry(0, 6, try editor.l2Entry(0, 5))
            try editor.setL2Entry(2, 256, try editor.l2Entry(1, 0))
        }
        try editor.setFeatures(2)
        let before = try await content(try structure(CutFile(try readFile(image))))
        try await cut(try readFile(image)) { structure in
            _ = try await ImageCheck(path: "x", repair: .all, separatesCrossLinks: separates).run(on: structure)
        } verify: { structure, isFinished in
            #expect(try await content(structure) == before)
            if isFinished {
                try await expectSound(structure)
                #expect(!structure.header.needsCheck)
            }
        }
    }

    @Test func changeOfTheBackingFile() async throws {
        try makeImage()
        try require(["qemu-img", "rebase", "-u", "-f", "qed", "-b", "old-name", "-F", "raw", image])
        let new = try BackingFileName(Array("a-new-name".utf8))
        let before = try await content(try structure(CutFile(try readFile(image))))
        try await cut(try readFile(image)) { structure in
            var structure = structure
            try await structure.setBackingFile(new, isRaw: false, path: "x")
        } verify: { structure, isFinished in
            let range = try #require(structure.header.backingFileNameRange)
            let bytes = structure.storage.file.bytes(range.fileOffset..<range.endFileOffset)
            let name = String(decoding: bytes, as: UTF8.self)
            #expect(
                name == "a-new-name" && !structure.header.backingFileIsRaw
                    || !isFinished && name == "old-name" && structure.header.backingFileIsRaw)
            #expect(try await content(structure) == before)
        }
    }
}
