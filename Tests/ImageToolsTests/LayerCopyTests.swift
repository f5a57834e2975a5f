import BlockStorage
import QEDChain
import QEDEngine
import QEDFormat
import TestSupport
import Testing

@testable import ImageTools

/// The upper files of a chain are copied into one beneath them: all read the same before, meanwhile and afterwards.
@Suite struct LayerCopyTests {
    private static let sizes = [4 << 20, 3 << 20, 5 << 20, 2 << 20, 4 << 20]
    private static let clusters = [65536, 4096, 16384, 65536, 8192]

    /// The lowest first. Each is written here and there, some of it with zeros, over what lies beneath.
    private func makeChain(_ seed: Int, in scratch: TemporaryDirectory) throws -> [String] {
        var random = SeededGenerator(seed: UInt64(seed))
        var paths: [String] = []
        for layer in 0..<5 {
            let path = scratch.path("\(layer).qed")
            let base = paths.isEmpty ? [] : ["-b", "\(layer - 1).qed", "-F", "qed"]
            let cluster = Self.clusters[(layer + seed) % 5]
            try require(
                ["qemu-img", "create", "-q", "-f", "qed", "-u"] + base
                    + ["-o", "cluster_size=\(cluster)", path, "\(Self.sizes[(layer * 3 + seed) % 5])"])
            let disk = try Disk(path: path, format: .qed, isReadOnly: false)
            let buffer = PageBuffer(byteCount: 1 << 20)
            var requests: [BlockRequest] = []
            for number in 0..<12 {
                let length = 512 << Int.random(in: 0..<9, using: &random)
                let start = Int.random(in: 0..<(Int(disk.sizeBytes) - length) / 512, using: &random) * 512
                let byte = UInt8(16 * layer + number + 1)
                let place = buffer.address + number * 80_000 / 512 * 512
                place.initializeMemory(as: UInt8.self, repeating: byte, count: min(length, 80_000))
                requests.append(
                    number % 4 == 3
                        ? BlockRequest(.writeZeroes, deviceOffset: UInt64(start), byteCount: UInt64(length))
                        : BlockRequest(
                            .write, deviceOffset: UInt64(start), byteCount: UInt64(min(length, 65536)), buffer: place))
            }
            for request in requests { try disk.perform([request]) }
            try disk.close()
            paths.append(path)
        }
        return paths
    }

    /// The first file is copied into the second, up to a place; then, with a newer file over it, from there.
    @Test func copyThatWasCutShortGoesOn() throws {
        let scratch = try TemporaryDirectory()
        let buffer = PageBuffer(byteCount: 1 << 20)
        func write(_ path: String, _ byte: UInt8, _ megabytes: [UInt64]) throws {
            let disk = try Disk(path: path, format: .qed, isReadOnly: false)
            buffer.address.initializeMemory(as: UInt8.self, repeating: byte, count: 1 << 20)
            for megabyte in megabytes {
                try disk.perform([
                    BlockRequest(.write, deviceOffset: megabyte << 20, byteCount: 1 << 20, buffer: buffer.address)
                ])
            }
            try disk.close()
        }
        func make(_ name: String, over base: String?) throws -> String {
            let path = scratch.path(name)
            let backing = base.map { ["-b", $0, "-F", "qed"] } ?? []
            try require(["qemu-img", "create", "-q", "-f", "qed"] + backing + [path, "160M"])
            return path
        }
        func open(_ path: String) throws -> [LayerFile] {
            try ImageChain.open(path: path, isReadOnly: true, caching: .buffered, locking: .none)
        }
        let target = try make("0.qed", over: nil)
        try write(target, 1, [0, 5])
        let first = try make("1.qed", over: "0.qed")
        try write(first, 2, Array(0..<100) + [159])
        let file = try ImageFile(path: target, access: .readWrite, caching: .buffered, lock: nil)
        var ends: [UInt64] = []
        let begun = try LayerCopy(chain: open(first), into: 1, opened: file)
        let cancelled = try begun.run(isDurable: { ends.append($0) }, { $0 < 0.5 })
        #expect(cancelled == nil)
        #expect(ends == [64 << 20], "copied in pieces of 32 MiB, of which the last is not told of")
        // What is there is not copied again: a mark shows it.
        try write(target, 9, [3])
        try MergeMark.put(on: file)
        let newest = try make("2.qed", over: "1.qed")
        try write(newest, 3, [2, 120])
        let before = try content(newest, scratch)
        let copy = LayerCopy(chain: try open(newest), into: 2, opened: file, after: .init(endBytes: 64 << 20, newFiles: 1))
        var later: [UInt64] = []
        #expect(try copy.run(isDurable: { later.append($0) }, { _ in true }) != nil)
        #expect(later.allSatisfy { $0 > 64 << 20 })
        var merged = try content(target, scratch)
        #expect(merged[3 << 20] == 9)
        merged.replaceSubrange(3 << 20..<4 << 20, with: repeatElement(2, count: 1 << 20))
        #expect(merged == before)
    }

    private func content(_ path: String, _ scratch: TemporaryDirectory) throws -> [UInt8] {
        try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", path, scratch.path("raw")])
        return try readFile(scratch.path("raw"))
    }

    @Test("of several sizes and geometries, read by QEMU", arguments: 0..<10)
    func copies(seed: Int) throws {
        let scratch = try TemporaryDirectory()
        let paths = try makeChain(seed, in: scratch)
        let before = try content(paths[4], scratch)
        let (first, last) = (3 - seed % 2, seed % 3 % 2)
        do {
            let chain = try ImageChain.open(path: paths[4], isReadOnly: true, caching: .buffered, locking: .none)
            let index = 4 - first
            let target = try ImageFile(path: paths[last], access: .readWrite, caching: .buffered, lock: nil)
            // Told to end in the middle: nothing can be seen of it.
            var looks = 0
            let cancelled = try LayerCopy(chain: Array(chain[index...]), into: first - last, opened: target).run { _ in
                looks += 1
                return looks < 2
            }
            #expect(cancelled == nil)
            #expect(try content(paths[4], scratch) == before)
            #expect(try ImageHeader(reading: target).header.hasUnfinishedMerge)
            let tables = try LayerCopy(chain: Array(chain[index...]), into: first - last, opened: target).run { _ in true }
            #expect(tables != nil)
            #expect(try ImageHeader(reading: target).header.hasUnfinishedMerge)
            #expect(try content(paths[4], scratch) == before, "before the file above lies over it")
            // The file above is the top, or lies between.
            let above = try ImageFile(path: paths[first + 1], access: .readWrite, caching: .buffered, lock: nil)
            try BackingFileSwitch.set(above, to: try BackingFileName(storing: "\(last).qed"))
        }
        #expect(try content(paths[4], scratch) == before, "over the merged file")
        let target = try ImageFile(path: paths[last], access: .readWrite, caching: .buffered, lock: nil)
        try MergeMark.remove(from: target)
        #expect(try !ImageHeader(reading: target).header.hasUnfinishedMerge)
        for path in [paths[last], paths[first + 1], paths[4]] {
            #expect(try require(["qemu-img", "check", path]).contains("No errors"))
        }
    }
}

private struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed &+ 0x9e37_79b9_7f4a_7c15 }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
