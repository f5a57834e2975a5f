import Platform
import QEDEngine
import Testing
import Ublk

@testable import DeviceServer

/// What `stats` makes of what the queues of a device have counted.
@Suite struct QueueFiguresTests {
    private func queue(_ change: (inout QueueFigures) -> Void = { _ in }) -> QueueFigures {
        var figures = QueueFigures(
            requests: QueueStatistics(), engine: EngineStatistics(),
            cache: CacheUse(l2: PageUse(pages: 3, pageLimit: 16, evictions: 1), chain: nil))
        change(&figures)
        return figures
    }

    @Test func queuesTogether() {
        let queues = [
            queue {
                $0.requests.reads = 90
                $0.requests.largestUnderWay = 5
                $0.engine.pageMisses = 2
                $0.engine.pageLoads = 1
                $0.engine.allocatedClusters = 7
                $0.engine.commitTimes.record(nanoseconds: 3_000_000)
            },
            queue {
                $0.requests.writes = 12
                $0.requests.underWay = 1
                $0.requests.largestUnderWay = 9
                $0.engine.pageLoads = 3
                $0.engine.commitTimes.record(nanoseconds: 1_000_001)
            },
        ]
        let figures = QueueFigures.json(queues, device: "/dev/ublkb7")
        #expect(figures["device"] == "/dev/ublkb7")
        #expect(figures["requests"]?["reads"] == 90 && figures["requests"]?["under-way"] == 1)
        #expect(figures["requests"]?["largest-under-way"] == 9)
        #expect(figures["storage-operations"]?["allocated-clusters"] == 7)
        #expect(
            figures["cache"] == [
                "hits": 100, "misses": 2, "l2-loads": 4, "l2-evictions": 1, "l2-pages": 3, "l2-bytes": 12288,
                "l2-budget-bytes": 65536,
            ])
        let commits = figures["commit-microseconds"]?["commit"]
        #expect(commits?["count"] == 2 && commits?["total"] == 4001 && commits?["mean"] == 2000 && commits?["p100"] == 3000)
        #expect(figures["commit-microseconds"]?["sync"]?["count"] == 0)
        #expect(figures["commit-microseconds"]?["sync"]?["p50"] == .null)
        #expect(figures["latency-microseconds"]?["read"]?["requests"] == 0)
        guard case .array(let each)? = figures["queues"] else {
            Issue.record("no queues")
            return
        }
        #expect(each.map { $0["requests"]?["largest-under-way"] } == [5, 9])
        #expect(each.map { $0["storage-operations"]?["allocated-clusters"] } == [7, 0])
    }

    @Test func pagesOfAChain() {
        let figures = QueueFigures.json(
            [
                queue {
                    $0.cache.chain = PageUse(pages: 2, pageLimit: 20, evictions: 4)
                    $0.engine.chainPageLoads = 6
                }
            ], device: "")
        #expect(figures["cache"]?["chain-loads"] == 6 && figures["cache"]?["chain-evictions"] == 4)
        #expect(figures["cache"]?["chain-pages"] == 2 && figures["cache"]?["chain-budget-bytes"] == 81920)
        // A device that was asked for nothing has missed nothing.
        #expect(figures["cache"]?["hits"] == 0 && figures["cache"]?["misses"] == 0)
    }

    @Test("as many queues as are listed have room in a reply after years of work, and more are left out")
    func repliesHaveRoom() {
        var busy = queue()
        // A petabyte, in ten years' requests.
        busy.requests.readBytes = 1 << 50
        busy.requests.writtenBytes = 1 << 50
        busy.engine.allocatedBytes = 1 << 50
        for counter in [\QueueStatistics.reads, \.writes, \.flushes, \.discards, \.zeroings, \.failures, \.underWay, \.turns] {
            busy.requests[keyPath: counter] = 1 << 43
        }
        for counter in [
            \EngineStatistics.dataReads, \.dataWrites, \.fills, \.filledClusters, \.l2PageReads, \.l2PageWrites,
            \.l2EntriesWritten, \.l1PieceWrites, \.headerWrites, \.syncs, \.extensions, \.commits, \.slowRequests,
            \.registeredTransfers, \.borrowedRequests, \.allocatedClusters, \.allocatedTables, \.pageLoads, \.pageMisses,
        ] { busy.engine[keyPath: counter] = 1 << 43 }
        let many = Array(repeating: busy, count: QueueFigures.listedQueueLimit)
        let reply = ControlReply.success(QueueFigures.json(many, device: "/dev/ublkb1000000"))
        #expect(ControlReply(line: reply.line) == reply)
        let more = QueueFigures.json(many + [busy], device: "")
        #expect(more["queues"] == [] && more["requests"]?["reads"]?.integer(as: UInt64.self) == 65 << 43)
    }
}
