import Testing

@testable import QEDEngine

/// Who leads a commit and who shares it: checked over every short history.
@Suite struct CommitCoordinatorTests {
    @Test func theFirstLeadsAndTheOthersShareTheNext() {
        var coordinator = CommitCoordinator<String>()
        #expect(coordinator.isIdle)
        #expect(coordinator.join("a") == .lead)
        #expect(coordinator.join("b") == .wait)
        #expect(coordinator.join("c") == .wait)
        var outcome = coordinator.commitEnded()
        // b and c came while a's commit ran: it may have missed what they wrote.
        #expect(outcome.finished.isEmpty)
        #expect(outcome.nextLeader == "b")
        #expect(coordinator.join("d") == .wait)
        outcome = coordinator.commitEnded()
        #expect(outcome.finished == ["c"])
        #expect(outcome.nextLeader == "d")
        outcome = coordinator.commitEnded()
        #expect(outcome.finished.isEmpty)
        #expect(outcome.nextLeader == nil)
        #expect(coordinator.isIdle)
    }

    /// In every order of joins and ends: a commit that answers a flush began after the flush arrived, at most one runs at
    /// a time, and nobody is forgotten.
    @Test func everyShortHistory() {
        for history in 0..<(1 << 10) {
            var coordinator = CommitCoordinator<Int>()
            var commit = 0
            var isRunning = false
            var leader = 0
            var arrivedDuring: [Int: Int] = [:]
            var answered: Set<Int> = []
            func answer(_ waiter: Int) {
                #expect(commit > arrivedDuring[waiter] ?? .max, "flush \(waiter) shares a commit that began before it")
                #expect(answered.insert(waiter).inserted, "flush \(waiter) is answered twice")
            }
            func end() {
                let outcome = coordinator.commitEnded()
                answer(leader)
                outcome.finished.forEach(answer)
                isRunning = outcome.nextLeader != nil
                if let next = outcome.nextLeader {
                    leader = next
                    commit += 1
                }
            }
            for step in 0..<10 {
                if history >> step & 1 == 0 {
                    arrivedDuring[step] = commit
                    if coordinator.join(step) == .lead {
                        #expect(!isRunning, "two commits at once")
                        isRunning = true
                        leader = step
                        commit += 1
                    }
                } else if isRunning {
                    end()
                }
            }
            while isRunning { end() }
            #expect(answered == Set(arrivedDuring.keys), "history \(history)")
            #expect(coordinator.isIdle)
        }
    }

    @Test func aSyncCoversWhatCompletedBeforeItBegan() {
        var syncs = SyncCoordinator<String>()
        #expect(syncs.join("a") == .lead)
        let needed = syncs.nextToStart
        #expect(syncs.begin() == needed)
        // What completes now is not covered by the first.
        let neededLater = syncs.nextToStart
        #expect(syncs.join("b") == .wait)
        #expect(syncs.join("c") == .wait)
        var outcome = syncs.ended(succeeded: true)
        #expect(syncs.completed >= needed)
        #expect(syncs.completed < neededLater)
        #expect(outcome.finished.isEmpty)
        #expect(outcome.nextLeader == "b")
        #expect(!syncs.isIdle)
        #expect(syncs.begin() == neededLater)
        outcome = syncs.ended(succeeded: false)
        #expect(syncs.completed < neededLater, "a sync that failed covers nothing")
        #expect(outcome.finished == ["c"])
        #expect(outcome.nextLeader == nil)
        #expect(syncs.isIdle)
    }
}
