import Simulation
import Testing

/// Ranges are fetched from the bottom of the chain beside the requests of random histories, under both crash models.
@Suite struct FetchHistoriesTests {
    /// Of histories over a raw base whose reads are kept.
    private static let seeds: [UInt64] = [1, 3, 5, 9, 12, 14, 16, 20]

    @Test("what is fetched goes over nothing newer, and a cut or a kill leaves what was there", arguments: CrashModel.allCases)
    func fetches(_ model: CrashModel) throws {
        var fetches = 0
        for seed in Self.seeds {
            var history = RandomHistory(seed: seed, model: model, requestLimit: CrashTests.isThorough ? 120 : 30)
            do { fetches += try history.run().fetches } catch { throw Violation("\(model), seed \(seed): \(error)") }
        }
        #expect(fetches > Self.seeds.count)
    }
}
