import Testing

@testable import QEDEngine

/// Entries are changed only while the header says so durably, whoever extends or trims meanwhile.
@Suite struct NeedCheckStateTests {
    private static let all: [NeedCheckState] = [.clear, .unknown, .beingSet, .set, .setAndExtending, .beingCleared]

    @Test func entriesAreChangedOnlyWhereTheBitsAreDurable() {
        #expect(Self.all.filter(\.allowsChanges) == [.set, .setAndExtending])
        #expect(Self.all.filter(\.isBusy) == [.beingSet, .setAndExtending, .beingCleared])
        #expect(Self.all.filter(\.canBeCleared) == [.unknown, .set])
    }

    @Test(
        "an extension sets the bits, and whether it succeeds or not an image that had them keeps them", arguments: [true, false])
    func extensions(_ succeeds: Bool) {
        for before in [NeedCheckState.clear, .unknown, .set] {
            var state = before
            state.extensionBegins()
            #expect(state.isBusy)
            #expect(state.allowsChanges == (before == .set))
            state.extensionEnded(succeeded: succeeds)
            #expect(state == (succeeds || before == .set ? .set : .unknown), "from \(before)")
        }
    }

    @Test("nothing is changed while a trim runs; where it fails the bits are written again first", arguments: [true, false])
    func trims(_ succeeds: Bool) {
        for before in [NeedCheckState.unknown, .set] {
            var state = before
            state.trimBegins()
            #expect(state.isBusy && !state.allowsChanges && !state.canBeCleared)
            state.trimEnded(succeeded: succeeds)
            #expect(state == (succeeds ? .clear : .unknown))
            #expect(!state.allowsChanges && !state.isBusy)
        }
    }
}
