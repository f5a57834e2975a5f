import Simulation
import Testing

/// An empty overlay becomes the top of the chain while requests wait, and what was the top is sealed behind it; or it takes the
/// place of all that lies above a snapshot. Under both crash models, with failing disks, and with copies, discards and flushes
/// around it.
@Suite struct SnapshotTests {
    /// Histories that take snapshots.
    private static let seeds: [UInt64] = [3, 10, 15, 22, 26, 31, 38, 43]

    @Test(
        "whatever a crash leaves holds what was acknowledged, and every snapshot what its moment had",
        arguments: CrashModel.allCases)
    func snapshots(_ model: CrashModel) throws {
        var (snapshots, merges, rollbacks) = (0, 0, 0)
        for seed in Self.seeds {
            var history = RandomHistory(seed: seed, model: model, requestLimit: CrashTests.isThorough ? 400 : 120)
            do {
                let report = try history.run()
                snapshots += report.snapshots
                merges += report.merges
                rollbacks += report.rollbacks
            } catch {
                throw Violation("\(model), seed \(seed): \(error)")
            }
        }
        #expect(snapshots > Self.seeds.count / 2)
        #expect(merges > Self.seeds.count / 8)
        #expect(rollbacks > Self.seeds.count / 8)
    }
}
