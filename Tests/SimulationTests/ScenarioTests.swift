import QEDEngine
import Simulation
import Testing

@Suite struct ScenarioTests {
    @Test("more requests at once than the cache has pages are all answered", .timeLimit(.minutes(5)),
        arguments: [BlockOperation.read, .write, .writeZeroes], [Scene.Base.none, .raw])
    func morePagesWantedThanTheCacheHolds(_ operation: BlockOperation, _ base: Scene.Base) throws {
        try Scenarios.morePagesWantedThanTheCacheHolds(seed: 1, operation: operation, base: base)
    }
}
