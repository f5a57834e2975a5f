import Testing

@testable import QEDEngine

/// Who leads a commit and who shares it: checked over every short history.
@Suite struct CommitCoordinatorTests {
    @Test func theFirstLeadsAndTheOthersShareTheNext() {
        var coordinator = CommitCoordinator<String>()
        #expect(coordinator.isIdle)
        #expect(coordinator.join("a") == .lead)
        coordinator.begin()
        #expect(coordinator.join("b") == .wait)
        #expect(coordinator.join("c") == .wait)
        var outcome = coordinator.commitEnded()
        // b and c came while a's commit ran: it may have missed what they wrote.
        #expect(outcome.finished.isEmpty)
        #expect(outcome.nextLeader == "b")
        // d comes before b's commit begins, and shares it.
        #expect(coordinator.join("d") == .wait)
        coordinator.begin()
        #expect(coordinator.join("e") == .wait)
        outcome = coordinator.commitEnded()
        #expect(outcome.finished == ["c", "d"])
        #expect(outcome.nextLeader == "e")
        coordinator.begin()
        outcome = coordinator.commitEnded()
        #expect(outcome.finished.isEmpty)
        #expect(outcome.nextLeader == nil)
        #expect(coordinator.isIdle)
    }

    /// Two queues that flush again as soon as they are answered: the third commit is for both, and so are those after it.
    @Test func twoThatFlushWithoutEndShareTheirCommits() {
        var coordinator = CommitCoordinator<String>()
        #expect(coordinator.join("a") == .lead)
        #expect(coordinator.gatheringNanoseconds(now: 0) == nil, "nobody is expected")
        coordinator.begin(now: 0)
        #expect(coordinator.join("b") == .wait)
        var outcome = coordinator.commitEnded(now: 1_000_000)
        #expect(outcome.nextLeader == "b")
        // a was answered just now, and has a quarter of the commit's time.
        #expect(coordinator.gatheringNanoseconds(now: 1_050_000) == 200_000)
        _ = coordinator.gather("b")
        #expect(coordinator.gathered() == nil)
        #expect(coordinator.join("a") == .wait)
        #expect(coordinator.gathered() == "b")
        #expect(coordinator.gathered() == nil, "woken twice")
        coordinator.begin(now: 1_100_000)
        outcome = coordinator.commitEnded(now: 2_100_000)
        #expect(outcome.finished == ["a"])
        #expect(outcome.nextLeader == nil)
        #expect(coordinator.join("a") == .lead)
        #expect(coordinator.gatheringNanoseconds(now: 2_150_000) == 200_000)
    }

    /// a's commit took a millisecond, and has ended; b, which came meanwhile, leads the next.
    private func afterACommitThatOneWaitedFor() -> CommitCoordinator<String> {
        var coordinator = CommitCoordinator<String>()
        #expect(coordinator.join("a") == .lead)
        coordinator.begin(now: 0)
        #expect(coordinator.join("b") == .wait)
        #expect(coordinator.commitEnded(now: 1_000_000).nextLeader == "b")
        return coordinator
    }

    @Test func nobodyIsWaitedForInVain() {
        var coordinator = afterACommitThatOneWaitedFor()
        let number = coordinator.gather("b")
        #expect(coordinator.gatheringTimedOut(number) == "b")
        #expect(coordinator.gatheringTimedOut(number) == nil)
        coordinator.begin(now: 1_250_000)
        _ = coordinator.commitEnded(now: 2_250_000)
        // It was alone: now one is expected.
        #expect(coordinator.join("b") == .lead)
        #expect(coordinator.gatheringNanoseconds(now: 2_260_000) == nil)
        coordinator.begin(now: 2_260_000)
        _ = coordinator.join("c")
        _ = coordinator.commitEnded(now: 90_000_000)
        // A slow commit is no reason to wait for long, and a quick one is not worth a timer.
        #expect(coordinator.gatheringNanoseconds(now: 90_000_000) == 1_000_000)
        coordinator.begin(now: 91_000_000)
        _ = coordinator.join("a")
        _ = coordinator.commitEnded(now: 91_030_000)
        #expect(coordinator.gatheringNanoseconds(now: 91_030_000) == nil)
        coordinator.begin(now: 91_030_000)
        _ = coordinator.join("b")
        _ = coordinator.commitEnded(now: 92_030_000)
        // The end of the last commit is long past.
        #expect(coordinator.gatheringNanoseconds(now: 100_000_000) == nil)
    }

    /// A leader whose time is over is not taken for the next one, which waits under another number.
    @Test func aTimerOfAnEarlierGatheringWakesNobody() {
        var coordinator = afterACommitThatOneWaitedFor()
        let number = coordinator.gather("b")
        _ = coordinator.join("a")
        #expect(coordinator.gathered() == "b")
        coordinator.begin(now: 1_100_000)
        _ = coordinator.commitEnded(now: 2_100_000)
        _ = coordinator.join("c")
        let next = coordinator.gather("c")
        #expect(coordinator.gatheringTimedOut(number) == nil)
        #expect(coordinator.gatheringTimedOut(next) == "c")
    }

    /// In every order of joins, ends of gatherings and ends of commits: a commit that answers a flush began after the flush
    /// arrived, at most one runs at a time, and nobody is forgotten.
    @Test func everyShortHistory() {
        for history in 0..<(1 << 12) {
            var coordinator = CommitCoordinator<Int>()
            var now: UInt64 = 1_000_000
            var commit = 0
            var isRunning = false
            var leader: Int?
            var gathering: UInt64?
            var arrivedDuring: [Int: Int] = [:]
            var answered: Set<Int> = []
            func answer(_ waiter: Int) {
                #expect(commit > arrivedDuring[waiter] ?? .max, "flush \(waiter) shares a commit that began before it")
                #expect(answered.insert(waiter).inserted, "flush \(waiter) is answered twice")
            }
            func begin() {
                #expect(!isRunning, "two commits at once")
                isRunning = true
                gathering = nil
                commit += 1
                coordinator.begin(now: now)
            }
            func lead(_ waiter: Int) {
                #expect(leader == nil, "two leaders at once")
                leader = waiter
                if coordinator.gatheringNanoseconds(now: now) == nil { return begin() }
                gathering = coordinator.gather(waiter)
            }
            func goOn() {
                if let number = gathering {
                    #expect(coordinator.gatheringTimedOut(number) == leader)
                    begin()
                } else if isRunning, let ended = leader {
                    let outcome = coordinator.commitEnded(now: now)
                    answer(ended)
                    outcome.finished.forEach(answer)
                    isRunning = false
                    leader = nil
                    if let next = outcome.nextLeader { lead(next) }
                }
            }
            for step in 0..<12 {
                now += 100_000
                if history >> step & 1 == 0 {
                    arrivedDuring[step] = commit
                    if coordinator.join(step) == .lead {
                        lead(step)
                    } else if let woken = coordinator.gathered() {
                        #expect(woken == leader)
                        begin()
                    }
                } else {
                    goOn()
                }
            }
            while leader != nil { goOn() }
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
