/// Which boot of which machine it is. What only memory keeps does not outlive it.
public struct BootIdentity: Hashable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    public static let path = "/proc/sys/kernel/random/boot_id"

    /// This one: the kernel's random boot id, the same in all containers. nil where /proc is not mounted, and nothing else
    /// tells.
    public static let current = readSmallFile(path, limitBytes: 64).flatMap { BootIdentity(text: $0) }

    /// - Parameter text: 32 hexadecimal digits, with hyphens and a line feed that do not count.
    init?(text: [UInt8]) {
        let digits = text.filter { $0 != UInt8(ascii: "-") && $0 != UInt8(ascii: "\n") }
        guard let identity = FileIdentity(String(decoding: digits, as: UTF8.self)),
            (identity.high, identity.low) != (0, 0)
        else { return nil }
        self.init(high: identity.high, low: identity.low)
    }
}
