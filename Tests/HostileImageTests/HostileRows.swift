import Testing

/// The list of hostile images, by number: where each row is tested. Most are lines of a table.
enum HostileRows {
    static let all = 1...85

    /// Lines of `HostileImageTests` and `BackingNameTests`.
    static let inTables = Set(HostileImageTests.images.map(\.row)).union(BackingNameTests.names.map(\.row))

    /// Rows that a test of their own is about; many of them are in a table as well.
    static let elsewhere: [Int: String] = [
        6: "HeaderSideEffectTests.tablesOfOneCluster", 24: "HeaderSideEffectTests.emptyImage",
        26: "HeaderSideEffectTests.compatBits", 27: "HeaderSideEffectTests.autoclearBits",
        29: "HeaderSideEffectTests.foreignBytesStay", 37: "EntrySideEffectTests.cutCluster",
        39: "EntrySideEffectTests.tail", 47: "EntrySideEffectTests.entriesBehindTheEnd",
        48: "EntrySideEffectTests.dirtyTail", 49: "EntrySideEffectTests.staleEntry",
        50: "EntrySideEffectTests.needCheckIsHonoured", 51: "EntrySideEffectTests.needCheckReadOnly",
        52: "EntrySideEffectTests.needCheckAndCrossLinks", 53: "EntrySideEffectTests.needCheckAndTables",
        55: "EntrySideEffectTests.hugeSparseFile", 56: "EntrySideEffectTests.uniformRuns",
        57: "EntrySideEffectTests.hugeRequests", 59: "BackingNameTests.nameAtTheEnd",
        66: "BackingNameTests.mutualLoop", 67: "BackingNameTests.relativeToTheLink",
        68: "BackingPolicyTests", 73: "BackingNameTests.shortBase", 74: "BackingNameTests.declaredFormat",
        75: "BackingNameTests.declaredFormat", 77: "BackingNameTests.damagedBase",
        78: "EnvironmentTests.baseIsCut", 79: "BackingNameTests.nameTooLongForTheHeader",
        80: "BackingNameTests.deepChain", 81: "EnvironmentTests.notAFile", 82: "EnvironmentTests.readOnlyFile",
        83: "EnvironmentTests.usedByQEMU, CommandContractTests.inUse", 84: "EnvironmentTests.pastTheEnd",
        85: "EnvironmentTests.noSpace, SimulationTests",
    ]
}

@Suite struct HostileRowsTests {
    @Test func everyRowIsTested() {
        for row in HostileRows.all {
            #expect(HostileRows.inTables.contains(row) || HostileRows.elsewhere[row] != nil, "row \(row)")
        }
    }
}
