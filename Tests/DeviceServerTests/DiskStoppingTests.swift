import Testing

@testable import DeviceServer

@Suite struct DiskStoppingTests {
    private func asked(_ number: UInt64, force: Bool = false) -> DiskStopping.Attempt {
        .init(force: force, request: ControlSocketServer.ConnectionID(number: number))
    }

    @Test func aDiskThatNobodyWantsGoneIsLeftAlone() {
        let stop = DiskStopping(isLazy: false)
        #expect(!stop.isDraining && !stop.isLazy && !stop.awaitsMachine)
    }

    @Test func aLazyOneIsLookedAtAgainAndAgain() {
        var stop = DiskStopping(isLazy: false)
        stop.becomeLazy()
        #expect(stop.isDraining)
        let attempts = [stop.next(), stop.next(), stop.next()]
        #expect(attempts == .init(repeating: .init(afterMilliseconds: DiskStopping.lazyMilliseconds), count: 3))
        let afterFailure = stop.next(afterFailure: true)
        #expect(afterFailure.afterMilliseconds == DiskStopping.failureMilliseconds)
    }

    @Test func whoAsksMeanwhileComesNextAndOnce() {
        var stop = DiskStopping(isLazy: true)
        let taken = [stop.noteRequest(asked(1, force: true)), stop.noteRequest(asked(2))]
        #expect(taken == [true, false])
        let attempts = [stop.next(), stop.next()]
        #expect(attempts == [asked(1, force: true), .init(afterMilliseconds: DiskStopping.lazyMilliseconds)])
        let isTaken = stop.noteRequest(asked(2))
        #expect(isTaken)
    }

    @Test func aSignalComesBeforeThat() {
        var stop = DiskStopping(isLazy: true)
        let isTaken = stop.noteRequest(asked(1))
        stop.noteSignal()
        let attempts = [stop.next(), stop.next()]
        #expect(isTaken && attempts == [.init(isOfSignal: true), asked(1)])
    }

    @Test func theSecondSignalEndsADiskThatCannotWait() {
        var stop = DiskStopping(isLazy: false)
        stop.noteSignal()
        let first = stop.next()
        stop.forceNextSignal()
        stop.noteSignal()
        let second = stop.next()
        #expect(first == .init(isOfSignal: true) && second == .init(force: true, isOfSignal: true))
    }

    @Test func aMachineThatGoesDownIsFasterThanThat() {
        var stop = DiskStopping(isLazy: true)
        stop.awaitMachine()
        let attempt = stop.next()
        #expect(attempt == .init(afterMilliseconds: DiskStopping.machineMilliseconds))
    }
}
