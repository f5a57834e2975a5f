import Platform
import Testing

@testable import qed_ublk

/// `stats`, for people.
@Suite struct StatsTableTests {
    private static let figures: JSONValue = [
        "device": "/dev/ublkb0", "requests": ["reads": 1000, "largest-under-way": 32],
        "storage-operations": ["l2-page-writes": 4, "l2-entries-written": 130, "allocated-bytes": 123_456_789_012],
        "cache": ["hits": 99999, "misses": 1, "l2-budget-bytes": 33_554_432],
        "latency-microseconds": ["read": ["requests": 0, "p50": .null]],
        "commit-microseconds": ["commit": ["count": 2, "mean": 7, "p100": 12], "sync": ["count": 0, "p100": .null]],
        "queues": [],
    ]

    @Test func aDeviceWithOneQueue() {
        #expect(
            StatsCommand.table(Self.figures) == """
                /dev/ublkb0                  TOTAL
                REQUESTS
                reads                         1000
                largest-under-way               32
                STORAGE-OPERATIONS
                l2-page-writes                   4
                l2-entries-written             130
                allocated-bytes       123456789012
                l2-entries-per-write          32.5
                CACHE
                hits                         99999
                misses                           1
                l2-budget-bytes           33554432
                hit-percent                  99.99
                LATENCY-MICROSECONDS
                read-requests                    0
                COMMIT-MICROSECONDS
                commit-count                     2
                commit-mean                      7
                commit-p100                     12
                sync-count                       0
                """)
    }

    @Test("what is of one queue has a column, and what never was has no ratio")
    func severalQueues() {
        guard case .object(var members) = Self.figures else { return }
        members.removeAll { ["queues", "cache", "latency-microseconds", "commit-microseconds"].contains($0.name) }
        let queue: JSONValue = [
            "requests": ["reads": 500, "largest-under-way": 32], "storage-operations": ["allocated-bytes": 0],
        ]
        let other: JSONValue = [
            "requests": ["reads": 500, "largest-under-way": 3],
            "storage-operations": ["l2-page-writes": 4, "l2-entries-written": 130, "allocated-bytes": 123_456_789_012],
        ]
        members.append(.init("queues", [queue, other]))
        let lines = StatsCommand.table(.object(members)).split(separator: "\n")
        #expect(lines.contains("largest-under-way               32       32             3"))
        #expect(lines.contains("l2-entries-per-write          32.5        -          32.5"))
        #expect(lines.allSatisfy { $0.count <= 80 })
    }
}
