import Testing

@testable import QEDEngine

/// Space is zeroed when it is reserved until it turns out that it cannot be, or that it takes long.
@Suite struct FreshSpaceZeroingTests {
    private static let chunk: UInt64 = 8 << 20

    @Test func aDiskThatIsFastEnoughGoesOn() {
        var zeroing = FreshSpaceZeroing()
        for _ in 0..<3 { zeroing.ended(byteCount: Self.chunk, nanoseconds: 10_000_000 + Self.chunk) }
        #expect(zeroing.isOn)
    }

    @Test func aSlowDiskIsAskedOnce() {
        var zeroing = FreshSpaceZeroing()
        zeroing.ended(byteCount: Self.chunk, nanoseconds: 10_000_001 + Self.chunk)
        #expect(!zeroing.isOn)
        // What took no time later does not turn it on again.
        zeroing.ended(byteCount: Self.chunk, nanoseconds: 0)
        #expect(!zeroing.isOn)
    }

    @Test func aRefusalIsRemembered() {
        var zeroing = FreshSpaceZeroing()
        zeroing.refused()
        #expect(!zeroing.isOn)
    }
}
