import Foundation
import QEDChain
import QEDEngine
import QEDFormat
import Simulation
import TestSupport
import Testing

@testable import ImageTools

/// commit, rebase, flatten and compact.
@Suite struct ChainToolTests {
    let scratch: TemporaryDirectory
    var overlay: String { scratch.path("overlay.qed") }

    init() throws { scratch = try TemporaryDirectory() }

    private func expectSound(_ path: String) throws {
        let verdict = try QEMUVerdict(of: path)
        #expect(verdict.corruptions + verdict.leaks + verdict.errors == 0)
        #expect(try ImageEditor(path).features & 2 == 0)
    }

    /// A base of 20 MiB with data here and there, in a format, and another that differs in places.
    private func makeBase(_ name: String, _ format: String, other: Bool = false) throws -> String {
        let path = scratch.path(name)
        try require(["qemu-img", "create", "-q", "-f", format, path, "20M"])
        try qemuIO(
            path, format: format, "write -P 1 0 3M", "write -P 2 10M 70144", "write -P \(other ? 30 : 3) 15M 1M",
            "write -P \(other ? 4 : 0) 18M 100k", "write -P \(other ? 0 : 5) 17M 100k")
        return path
    }

    private func makeOverlay(_ base: String, _ format: String, _ geometry: TestGeometry, size: String = "20M") throws {
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-o", geometry.options, "-b", base, "-F", format, overlay, size,
        ])
        try qemuIO(overlay, "write -P 9 1M 100k", "write -z 2M 512k", "write -P 8 19M 512", "write -P 7 10500k 1000")
    }

    @Test("commit, as QEMU does it", arguments: TestGeometry.all, ["raw", "qed"])
    func commit(_ geometry: TestGeometry, format: String) throws {
        let base = try makeBase("base", format)
        try makeOverlay(base, format, geometry, size: "25M")
        let content = try guestContent(overlay)
        try ImageCommit(path: overlay, keepsOverlay: true).run()
        #expect(try guestContent(base, format: format) == content)
        #expect(try guestContent(overlay) == content)
        try ImageCommit(path: overlay).run()
        #expect(try guestContent(base, format: format) == content)
        #expect(try guestContent(overlay) == content)
        #expect(try ImageEditor(overlay).fileSizeBytes == geometry.clusterSizeBytes * (1 + geometry.tableSizeClusters))
        try expectSound(overlay)
        if format == "qed" { #expect(try QEMUVerdict(of: base).corruptions == 0) }
        // And again, with QEMU as the writer in between.
        try qemuIO(overlay, "write -P 66 5M 3M")
        let changed = try guestContent(overlay)
        try ImageCommit(path: overlay).run()
        #expect(try guestContent(base, format: format) == changed)
    }

    @Test func commitNeedsABackingFileAndItsLock() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", overlay, "1M"])
        #expect(throws: ImageToolError.self) { try ImageCommit(path: overlay).run() }
        let base = try makeBase("base", "qed")
        let top = scratch.path("top.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", base, "-F", "qed", top])
        try qemuIO(top, "write -P 1 0 64k")
        let reader = try Disk(path: base, format: .qed, isReadOnly: true)
        let before = try readFile(top)
        #expect(throws: ImageToolError.self) { try ImageCommit(path: top).run() }
        #expect(try readFile(top) == before)
        try reader.close()
    }

    @Test("the base elsewhere of an image has another address: its name alone is changed; nothing else can be")
    func rebaseElsewhere() throws {
        let base = try makeBase("base", "raw")
        try makeOverlay(base, "raw", TestGeometry.all[0])
        func rebase(_ name: String, _ format: BackingFormat, isUnsafe: Bool) -> String? {
            do throws(ImageToolError) {
                try ImageRebase(path: overlay, backing: .init(name: name, format: format), isUnsafe: isUnsafe).run()
                return nil
            } catch {
                return "\(error)"
            }
        }
        let before = try Data(contentsOf: URL(fileURLWithPath: overlay))
        #expect(rebase("nbd://h/", .raw, isUnsafe: false)?.contains("is not compared with a base elsewhere") == true)
        #expect(rebase("nbd://h/", .qed, isUnsafe: true)?.contains("a base elsewhere is raw") == true)
        #expect(rebase("nbd://me@h/", .raw, isUnsafe: true)?.contains("names a user") == true)
        #expect(try Data(contentsOf: URL(fileURLWithPath: overlay)) == before)
        #expect(rebase("nbd+unix:///x?socket=/s", .raw, isUnsafe: true) == nil)
        let image = try ImageDescription(reading: overlay)
        #expect(image.backing?.name.text == "nbd+unix:///x?socket=/s" && image.backing?.declaredFormat == .raw)
        #expect(rebase(base, .raw, isUnsafe: true) == nil)
        try expectSound(overlay)
    }

    @Test("rebase keeps the contents", arguments: TestGeometry.all, ["raw", "qed"])
    func rebase(_ geometry: TestGeometry, format: String) throws {
        let base = try makeBase("base", format)
        let other = try makeBase("other", format, other: true)
        try makeOverlay(base, format, geometry)
        let content = try guestContent(overlay)
        let backing = ImageCreation.Backing(name: "other", format: format == "raw" ? .raw : .qed)
        try ImageRebase(path: overlay, backing: backing).run()
        #expect(try guestContent(overlay) == content)
        try expectSound(overlay)
        #expect(try ImageDescription(reading: overlay).backing?.name.text == "other")
        let size = try ImageEditor(overlay).fileSizeBytes
        #expect(size < 6 << 20 + 8 * geometry.clusterSizeBytes * geometry.tableSizeClusters)
        // Nothing differs any more; the first base is not needed.
        try FileManager.default.removeItem(atPath: base)
        #expect(try guestContent(overlay) == content)
        try ImageRebase(path: overlay, backing: nil).run()
        try FileManager.default.removeItem(atPath: other)
        #expect(try guestContent(overlay) == content)
        #expect(try ImageEditor(overlay).features == 0)
        try expectSound(overlay)
    }

    @Test("onto a base of another size", arguments: ["5M", "40M"])
    func rebaseOntoAnotherSize(size: String) throws {
        let base = try makeBase("base", "qed")
        try makeOverlay(base, "qed", TestGeometry.all[2], size: "30M")
        let content = try guestContent(overlay)
        let other = scratch.path("other")
        try require(["qemu-img", "create", "-q", "-f", "raw", other, size])
        try qemuIO(other, format: "raw", "write -P 77 0 \(size)")
        try ImageRebase(path: overlay, backing: .init(name: other, format: .raw)).run()
        #expect(try guestContent(overlay) == content)
        try expectSound(overlay)
        // A backing file for an image that had none.
        let plain = scratch.path("plain.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", plain, "10M"])
        try qemuIO(plain, "write -P 3 1M 64k")
        let plainContent = try guestContent(plain)
        try ImageRebase(path: plain, backing: .init(name: "other", format: .raw)).run()
        #expect(try guestContent(plain) == plainContent)
        try expectSound(plain)
    }

    @Test func unsafeRebaseChangesTheNameOnly() throws {
        let base = try makeBase("base", "raw")
        try makeOverlay(base, "raw", TestGeometry.all[2])
        let content = try guestContent(overlay)
        try FileManager.default.moveItem(atPath: base, toPath: scratch.path("moved"))
        for round in 0..<40 {
            let name = round % 2 == 0 ? "./moved" : "moved"
            try ImageRebase(path: overlay, backing: .init(name: name, format: .raw), isUnsafe: true).run()
            #expect(try ImageDescription(reading: overlay).backing?.name.text == name)
        }
        #expect(try guestContent(overlay) == content)
        let long = String(repeating: "x", count: 4000)
        try ImageRebase(path: overlay, backing: .init(name: long, format: .raw), isUnsafe: true).run()
        #expect(try ImageDescription(reading: overlay).backing?.name.text == long)
        try ImageRebase(path: overlay, backing: nil, isUnsafe: true).run()
        #expect(try ImageEditor(overlay).features == 0)
    }

    @Test func foreignBytesInTheHeaderStay() throws {
        let base = try makeBase("base", "raw")
        try makeOverlay(base, "raw", TestGeometry.all[2])
        try ImageEditor(overlay).setWord(0xdead_beef, at: 480)
        let old = try ImageDescription(reading: overlay)
        try ImageRebase(path: overlay, backing: .init(name: "../x", format: .raw), isUnsafe: true).run()
        #expect(try ImageEditor(overlay).word(at: 480) == 0xdead_beef)
        // A name that is gone leaves no bytes behind.
        let range = try #require(old.header.backingFileNameRange)
        let bytes = try readFile(overlay)[Int(range.fileOffset)..<Int(range.endFileOffset)]
        #expect(bytes.allSatisfy { $0 == 0 })
    }

    @Test func noOverlayBacksItself() throws {
        let base = try makeBase("base", "qed")
        try makeOverlay(base, "qed", TestGeometry.all[2])
        let before = try readFile(overlay)
        #expect(throws: ImageToolError.self) {
            try ImageRebase(path: overlay, backing: .init(name: "overlay.qed", format: .qed)).run()
        }
        #expect(throws: ImageToolError.self) {
            try ImageRebase(path: overlay, backing: .init(name: "none.qed", format: .qed)).run()
        }
        #expect(try readFile(overlay) == before)
    }

    @Test("compact", arguments: TestGeometry.all, [UInt64(1), 2, 3])
    func compact(_ geometry: TestGeometry, seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let cluster = geometry.clusterSizeBytes
        let perTable = cluster * cluster * geometry.tableSizeClusters / 8
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", geometry.options, overlay, "\(6 * perTable)"])
        var commands: [String] = []
        for number in 1...60 {
            let place =
                UInt64.random(in: 0..<6, using: &random) * perTable + UInt64.random(in: 0..<16, using: &random)
                * cluster
            commands.append("write -P \(number) \(place) \(cluster)")
        }
        try require(["qemu-io", "-f", "qed", overlay] + commands.flatMap { ["-c", $0] })
        // Tables and clusters go, and leave holes.
        let editor = try ImageEditor(overlay)
        for index in 0..<6 where try editor.l1Entry(index) != 0 && Bool.random(using: &random) {
            if Int.random(in: 0..<3, using: &random) == 0 {
                try editor.setL1Entry(index, 0)
            } else {
                for entry in 0..<16 where Bool.random(using: &random) { try editor.setL2Entry(index, entry, 0) }
            }
        }
        let map = try contentByMap()
        let leaks = try QEMUVerdict(of: overlay).leaks
        let outcome = try ImageCompaction(path: overlay).run()
        let after = try QEMUVerdict(of: overlay)
        #expect(after.corruptions == 0)
        #expect(after.leaks == 0, "of \(leaks): \(outcome)")
        #expect(try contentByMap() == map)
        #expect(outcome.fileSizeBytes == outcome.fileSizeBytesBefore - leaks * cluster)
    }

    /// The data of an image that is too large to be converted: each extent with its bytes.
    private func contentByMap() throws -> [UInt64: [UInt8]] {
        let disk = try Disk(path: overlay, format: .qed, isReadOnly: true)
        var content: [UInt64: [UInt8]] = [:]
        let editor = try ImageEditor(overlay)
        try disk.map().forEachExtent { extent throws(ImageToolError) in
            guard extent.kind == .data else { return }
            for start in stride(from: extent.start, to: extent.end, by: Int(editor.clusterSizeBytes)) {
                let buffer = PageBuffer(byteCount: Int(editor.clusterSizeBytes))
                try disk.read(start, byteCount: buffer.byteCount, into: buffer.address)
                content[start] =
                    Array(UnsafeRawBufferPointer(start: buffer.address, count: 64))
                    + [Zeros.fill(buffer.address, count: buffer.byteCount) ? 0 : 1]
            }
        }
        try disk.close()
        return content
    }
}
