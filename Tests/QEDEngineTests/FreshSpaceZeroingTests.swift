import Testing

@testable import QEDEngine

/// Space is zeroed when it is reserved, unless that cannot be, or takes long: then it is tried again, but ever more seldom.
@Suite struct FreshSpaceZeroingTests {
    private static let chunk: UInt64 = 8 << 20

    /// Which of the next `count` reservations are to be zeroed, when each takes so long.
    private func tries(_ zeroing: inout FreshSpaceZeroing, in count: Int, nanoseconds: UInt64) -> [Int] {
        (0..<count).filter { _ in
            guard zeroing.isWantedNext() else { return false }
            zeroing.ended(byteCount: Self.chunk, nanoseconds: nanoseconds)
            return true
        }
    }

    private let fast = 10_000_000 + chunk
    private let slow = 10_000_001 + chunk

    @Test func aDiskThatIsFastEnoughGoesOn() {
        var zeroing = FreshSpaceZeroing()
        #expect(tries(&zeroing, in: 10, nanoseconds: fast) == Array(0..<10))
    }

    @Test func aSlowDiskIsAskedEverMoreSeldom() {
        var zeroing = FreshSpaceZeroing()
        let expected = [0, 65, 322, 1347, 5444, 9541]
        #expect(tries(&zeroing, in: 10_000, nanoseconds: slow) == expected)
    }

    @Test("one slow answer, of a disk that was busy with something else, is not for ever")
    func itGoesOnAfterOneSlowAnswer() {
        var zeroing = FreshSpaceZeroing()
        for _ in 0..<3 {
            #expect(tries(&zeroing, in: 1, nanoseconds: slow) == [0])
            #expect(tries(&zeroing, in: 70, nanoseconds: fast) == [64, 65, 66, 67, 68, 69])
        }
    }

    @Test func aRefusalIsRemembered() {
        var zeroing = FreshSpaceZeroing()
        zeroing.refused()
        #expect(tries(&zeroing, in: 10_000, nanoseconds: 0).isEmpty)
    }
}
