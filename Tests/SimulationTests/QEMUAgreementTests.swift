import Foundation
import Simulation
import TestSupport
import Testing

/// QEMU looks at a sample of what power cuts leave: it finds no corruption, before anything is repaired, and reads in every
/// sector what the model allows.
@Suite(.serialized) struct QEMUAgreementTests {
    @Test("QEMU agrees about what a power cut leaves", arguments: [1, 2, 3, 5] as [UInt64])
    func agrees(_ seed: UInt64) throws {
        let scratch = try TemporaryDirectory()
        var states = 0
        var samples = 0
        var history = RandomHistory(seed: seed, requestLimit: 60)
        for (index, file) in try history.scene.backingFiles().enumerated() {
            #expect(index == 0)
            try write(file, to: scratch.path("base"))
        }
        let image = scratch.path("image.qed")
        let raw = scratch.path("copy.raw")
        _ = try history.run { state in
            states += 1
            guard states % 60 == 1, samples < 6 else { return }
            samples += 1
            try write(state.disk, to: image)
            let check = try run(["qemu-img", "check", "-f", "qed", image])
            // 0: nothing; 3: leaks, which a crash may leave.
            #expect(check.status == 0 || check.status == 3, "\(check.output)\(check.errors)")
            try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", image, raw])
            let copy = try Data(contentsOf: URL(fileURLWithPath: raw), options: .alwaysMapped)
            let wrong = copy.withUnsafeBytes { bytes in state.firstSectorThatMayNotBe(bytes) }
            #expect(wrong == nil, "QEMU reads what no write has left in sector \(wrong ?? 0)")
        }
        #expect(samples > 0)
    }

    private func write(_ disk: SimulatedDisk, to path: String) throws {
        try? FileManager.default.removeItem(atPath: path)
        guard FileManager.default.createFile(atPath: path, contents: nil) else { throw CocoaError(.fileWriteUnknown) }
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: disk.length)
        try disk.forEachPage { offset, bytes in
            let count = Int(min(UInt64(bytes.count), disk.length - offset))
            try handle.seek(toOffset: offset)
            try handle.write(contentsOf: Data(bytes.prefix(count)))
        }
        try handle.close()
    }
}
