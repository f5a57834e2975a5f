import BlockStorage
import Glibc
import QEDChain
import QEDFormat
import TestSupport
import Testing

@testable import QEDEngine

/// A chain of many files is read and written like one, however little memory there is for its tables.
@Suite struct DeepChainTests {
    private static let clusterBytes = 4096
    /// What a page of tables is for.
    private static let bytesPerPage = 512 * clusterBytes

    /// Overlays over each other, each of which has written some clusters of its own, and what the last one shows: a byte for each
    /// cluster.
    private func makeChain(_ depth: Int, sizeBytes: Int, in scratch: TemporaryDirectory) throws -> (path: String, [UInt8]) {
        var shown = [UInt8](repeating: 0, count: sizeBytes / Self.clusterBytes)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: Self.clusterBytes, alignment: 4096)
        defer { buffer.deallocate() }
        for layer in 0..<depth {
            let path = scratch.path("\(layer).qed")
            let base = layer == 0 ? [] : ["-b", "\(layer - 1).qed", "-F", "qed"]
            try require(
                ["qemu-img", "create", "-q", "-f", "qed", "-u"] + base + ["-o", "cluster_size=4096", path, "\(sizeBytes)"])
            let engine = try LocalEngine(path: path)
            buffer.initializeMemory(as: UInt8.self, repeating: UInt8(layer + 1), count: Self.clusterBytes)
            // Each page of tables has something of each layer, and of no other.
            let requests = (0..<sizeBytes / Self.bytesPerPage).flatMap { page in
                [2 * layer, 2 * layer + 1, 500].map { page * 512 + $0 }
            }
            for cluster in requests { shown[cluster] = UInt8(layer + 1) }
            let results = engine.perform(
                requests.map {
                    BlockRequest(
                        .write, deviceOffset: UInt64($0 * Self.clusterBytes), byteCount: UInt64(Self.clusterBytes),
                        buffer: buffer)
                })
            #expect(results.allSatisfy { $0 == 0 })
            try engine.close()
        }
        return (scratch.path("\(depth - 1).qed"), shown)
    }

    /// The caches have 16 pages each, and 64 requests at once want 24 of them, each from 40 files.
    @Test("many requests, few pages, many files")
    func manyRequests() throws {
        let scratch = try TemporaryDirectory()
        var (path, shown) = try makeChain(40, sizeBytes: 24 * Self.bytesPerPage, in: scratch)
        let engine = try LocalEngine(path: path, options: ImageOptions(cacheBytes: 1), depth: 64)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 64 * Self.clusterBytes, alignment: 4096)
        defer { buffer.deallocate() }
        var random = SystemRandomNumberGenerator()
        for round in 0..<40 {
            // From page to page, and over the end of one.
            let clusters = (0..<64).map { number in
                let index = number % 8 == 7 ? 511 : Int.random(in: 0..<90, using: &random)
                return min(number % 24 * 512 + index, shown.count - 2)
            }
            let isWrite = round % 4 == 3
            if isWrite {
                buffer.initializeMemory(as: UInt8.self, repeating: UInt8(100 + round), count: 64 * Self.clusterBytes)
            }
            let requests = clusters.enumerated().map { number, cluster in
                BlockRequest(
                    isWrite ? .write : .read, deviceOffset: UInt64(cluster * Self.clusterBytes),
                    byteCount: UInt64(Self.clusterBytes), buffer: buffer + number * Self.clusterBytes)
            }
            #expect(engine.perform(requests).allSatisfy { $0 == 0 })
            for (number, cluster) in clusters.enumerated() {
                if isWrite {
                    shown[cluster] = UInt8(100 + round)
                } else {
                    let byte = buffer.load(fromByteOffset: number * Self.clusterBytes + 4095, as: UInt8.self)
                    #expect(byte == shown[cluster], "cluster \(cluster) in round \(round)")
                }
            }
        }
        try engine.close()
        try expectShown(shown, path)
    }

    private func expectShown(_ shown: [UInt8], _ path: String) throws {
        let reads = shown.enumerated().filter { $0.offset % 7 == 0 || $0.element > 99 }.flatMap { cluster, byte in
            ["-c", "read -q -P \(byte) \(cluster * Self.clusterBytes) \(Self.clusterBytes)"]
        }
        for start in stride(from: 0, to: reads.count, by: 2000) {
            let piece = Array(reads[start..<min(start + 2000, reads.count)])
            let result = try run(["qemu-io", "-r", "-f", "qed"] + piece + [path])
            #expect(result.status == 0 && !result.output.contains("failed"), "\(result.output.prefix(400))")
        }
    }

    /// The base goes on behind the end of the disk, and the overlay's one cluster far behind that.
    @Test("a write to a cluster that goes beyond the disk, over a larger base of small clusters")
    func lastCluster() throws {
        let scratch = try TemporaryDirectory()
        let base = scratch.path("base.qed")
        let overlay = scratch.path("overlay.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", "cluster_size=4096", base, "8M"])
        try require(["qemu-io", "-f", "qed", base, "-c", "write -q -P 5 0 8M"])
        // QEMU wants whole clusters.
        _ = try ImageCreation(
            path: overlay, sizeBytes: 1 << 20, geometry: QEDGeometry(clusterSizeBytes: 4 << 20, tableSizeClusters: 1),
            backing: ImageCreation.Backing(name: base, format: .qed), allowsWhatQEMUCannotOpen: true
        ).create()
        let engine = try LocalEngine(path: overlay)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 6, count: 4096)
        #expect(engine.perform([BlockRequest(.write, deviceOffset: 8192, byteCount: 4096, buffer: buffer)]) == [0])
        #expect(engine.perform([BlockRequest(.read, deviceOffset: 0, byteCount: 1 << 20, buffer: buffer)]) == [0])
        let bytes = UnsafeRawBufferPointer(start: buffer, count: 1 << 20)
        let expected = { (offset: Int) -> UInt8 in (8192..<12288).contains(offset) ? 6 : 5 }
        #expect(bytes.enumerated().allSatisfy { $0.element == expected($0.offset) })
        try engine.close()
    }

    /// The base is cut while it is open: its table cannot be read any more.
    @Test("what the image itself has is read where the tables beneath it cannot be")
    func unreadableBase() throws {
        let scratch = try TemporaryDirectory()
        let (path, _) = try makeChain(3, sizeBytes: Self.bytesPerPage, in: scratch)
        let engine = try LocalEngine(path: path, options: ImageOptions(isReadOnly: true), backingCaching: .buffered)
        #expect(truncate(scratch.path("0.qed"), 4096) == 0)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
        defer { buffer.deallocate() }
        func read(_ cluster: Int, _ count: Int = 1) -> Int32 {
            engine.perform([
                BlockRequest(
                    .read, deviceOffset: UInt64(cluster * Self.clusterBytes), byteCount: UInt64(count * Self.clusterBytes),
                    buffer: buffer)
            ])[0]
        }
        #expect(read(0) == -EIO, "it is the base's")
        #expect(read(4, 2) == 0 && buffer.load(fromByteOffset: 8191, as: UInt8.self) == 3)
        #expect(read(100) == -EIO, "nobody knows")
        #expect(read(500) == 0 && buffer.load(as: UInt8.self) == 3)
        try engine.close()
    }

    /// 20 reads at once, each of which has to make a page from 40 files: what is in memory then is as much as with one file.
    @Test("a page of the chain is made once, and costs no page of its files")
    func readsOfAPage() throws {
        let scratch = try TemporaryDirectory()
        let (path, _) = try makeChain(40, sizeBytes: 4 * Self.bytesPerPage, in: scratch)
        let engine = try LocalEngine(path: path, options: ImageOptions(isReadOnly: true), depth: 64)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        let reads = (0..<64).map {
            BlockRequest(.read, deviceOffset: UInt64($0 % 4 * Self.bytesPerPage), byteCount: 4096, buffer: buffer)
        }
        #expect(engine.perform(reads).allSatisfy { $0 == 0 })
        let once = engine.queue.statistics.l2PageReads
        #expect(once == 4 * 40)
        #expect(engine.queue.statistics.chainPageLoads == 4 && engine.queue.statistics.pageLoads == 0)
        #expect(engine.queue.statistics.pageMisses == 64)
        let use = engine.queue.cacheUse
        #expect(use.chain == PageUse(pages: 4, pageLimit: 4096, evictions: 0) && use.l2.pages == 0)
        #expect(engine.perform(reads).allSatisfy { $0 == 0 })
        #expect(engine.queue.statistics.l2PageReads == once)
        #expect(engine.queue.statistics.pageMisses == 64)
        try engine.close()
    }
}
