import Glibc
import Testing

@testable import DeviceServer

@Suite("The capabilities of a thread, by its status")
struct ThreadCapabilitiesTests {
    /// As Linux 7 writes it, without what is not looked at.
    private static func status(_ changes: [String: String?] = [:]) -> ThreadCapabilities.Fields {
        let none = "0000000000000000"
        let fields = [
            ("Name", "qed-ublk"), ("Uid", "65534\t65534\t65534\t65534"), ("CapInh", none), ("CapPrm", none), ("CapEff", none),
            ("CapBnd", "000001ffffffffff"), ("CapAmb", none), ("NoNewPrivs", "1"),
        ]
        let lines = fields.compactMap { name, value -> String? in (changes[name] ?? value).map { "\(name):\t\($0)\n" } }
        return ThreadCapabilities.Fields(Array(lines.joined().utf8))
    }

    @Test("One whose sets are empty has none, whatever it could have been given")
    func none() {
        #expect(Self.status().hasNone)
        #expect(Self.status()["Name"] == "qed-ublk")
    }

    @Test("One in any set counts, and a set of which nothing is said", arguments: ["CapInh", "CapPrm", "CapEff", "CapAmb"])
    func some(set: String) {
        for value in ["0000000000200000", "8000000000000000", "", "none", nil] {
            #expect(!Self.status([set: value]).hasNone, "\(set) \(value ?? "left out")")
        }
    }

    @Test("Threads of a process that is root's have some", .enabled(if: geteuid() == 0))
    func own() {
        #expect(ThreadCapabilities.threadWithSome() != nil)
    }
}
