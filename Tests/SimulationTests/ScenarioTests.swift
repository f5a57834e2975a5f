import QEDEngine
import Simulation
import Testing

@Suite struct ScenarioTests {
    @Test(
        "more requests at once than the cache has pages are all answered", .timeLimit(.minutes(5)),
        arguments: [BlockOperation.read, .write, .writeZeroes], [Scene.Base.none, .raw])
    func morePagesWantedThanTheCacheHolds(_ operation: BlockOperation, _ base: Scene.Base) throws {
        try Scenarios.morePagesWantedThanTheCacheHolds(seed: 1, operation: operation, base: base)
    }

    @Test(
        "pages that cannot be written are not lost to the pages of another queue", .timeLimit(.minutes(5)),
        arguments: [Scene.Base.none, .qed])
    func pagesThatCannotBeWritten(_ base: Scene.Base) throws {
        try Scenarios.pagesThatCannotBeWritten(seed: 1, base: base)
    }

    @Test(
        "writes that need records of a full log are answered when a commit fails", .timeLimit(.minutes(5)),
        arguments: 1...4 as ClosedRange<UInt64>)
    func commitThatFailsWithTheLogFull(_ seed: UInt64) throws {
        try Scenarios.commitThatFailsWithTheLogFull(seed: seed)
    }

    @Test("a request beside a trim keeps its promise when the process is killed", arguments: [Scene.Base.none, .raw])
    func requestsBesideATrim(_ base: Scene.Base) throws {
        #expect(try Scenarios.requestsBesideATrim(seed: 1, base: base) > 8 * 4)
    }

    @Test("a request beside a read that is kept goes over it, and never the other way round")
    func requestsBesideAKeptRead() throws {
        #expect(try Scenarios.requestsBesideAKeptRead(seed: 1) > 8 * 4)
    }
}
