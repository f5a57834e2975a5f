import Simulation
import Testing

/// All queues are held until the engine is quiet, and go on: `DeviceQueues.whileQuiet` for a device, here under both crash
/// models.
@Suite struct QuiesceTests {
    /// Histories that hold their queues; of these seeds some have one queue, some two.
    private static let seeds: [UInt64] = [1, 3, 5, 8, 10, 12]

    @Test("while all queues are quiet nothing touches the file, and every answer is in it", arguments: CrashModel.allCases)
    func quietMoments(_ model: CrashModel) throws {
        var moments = 0
        for seed in Self.seeds {
            var history = RandomHistory(seed: seed, model: model, requestLimit: CrashTests.isThorough ? 120 : 30)
            do { moments += try history.run().quietMoments } catch {
                throw Violation("\(model), seed \(seed): \(error)")
            }
        }
        #expect(moments > Self.seeds.count)
    }
}
