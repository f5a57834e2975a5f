import Platform
import QEDEngine
import Ublk

/// What a queue has counted since its server began, and all of them together, as `stats` tells it.
struct QueueFigures: Sendable {
    var requests: QueueStatistics
    var engine: EngineStatistics
    /// The image's: every queue says the same.
    var cache: CacheUse

    /// With more queues the figures of each are left out: a reply has room for this many.
    static let listedQueueLimit = 64

    /// - Parameter queues: at least one.
    static func json(_ queues: [QueueFigures], device path: String) -> JSONValue {
        [
            "device": .string(path), "requests": requests(queues), "storage-operations": sum(queues.map(\.engine.counters)),
            "cache": cache(queues), "latency-microseconds": latencies(queues.map(\.requests.latencies)),
            "commit-microseconds": [
                "commit": durations(queues.map(\.engine.commitTimes)), "sync": durations(queues.map(\.engine.syncTimes)),
            ],
            "queues": .array(
                queues.count > listedQueueLimit
                    ? [] : queues.map { ["requests": requests([$0]), "storage-operations": sum([$0.engine.counters])] }),
        ]
    }

    private static func requests(_ queues: [QueueFigures]) -> JSONValue {
        guard case .object(let sums) = sum(queues.map(\.requests.counters)) else { return .null }
        // Queues have it at different moments: a sum of these would be of no moment.
        let largest = queues.map(\.requests.largestUnderWay).max() ?? 0
        return .object(sums + [.init("largest-under-way", JSONValue(largest))])
    }

    private static func sum(_ lists: [[(name: String, value: UInt64)]]) -> JSONValue {
        .object(
            (lists.first ?? []).indices.map { index in
                JSONValue.Member(lists[0][index].name, JSONValue(lists.reduce(0) { $0 &+ $1[index].value }))
            })
    }

    private static func cache(_ queues: [QueueFigures]) -> JSONValue {
        func sum(_ counter: (QueueFigures) -> UInt64) -> UInt64 { queues.reduce(0) { $0 &+ counter($1) } }
        let started = sum { $0.requests.reads &+ $0.requests.writes }
        let misses = sum { $0.engine.pageMisses }
        var members: [JSONValue.Member] = [
            .init("hits", JSONValue(started - min(misses, started))), .init("misses", JSONValue(misses)),
        ]
        func add(_ name: String, _ use: PageUse, loads: UInt64) {
            members += [
                .init("\(name)-loads", JSONValue(loads)), .init("\(name)-evictions", JSONValue(use.evictions)),
                .init("\(name)-pages", JSONValue(use.pages)), .init("\(name)-bytes", JSONValue(use.bytes)),
                .init("\(name)-budget-bytes", JSONValue(use.budgetBytes)),
            ]
        }
        if let use = queues.first?.cache {
            add("l2", use.l2, loads: sum { $0.engine.pageLoads })
            if let chain = use.chain { add("chain", chain, loads: sum { $0.engine.chainPageLoads }) }
        }
        return .object(members)
    }

    // MARK: - Times

    /// Percentiles of all queues together, and of how many requests.
    private static func latencies(_ queues: [RequestLatencies]) -> JSONValue {
        var all = RequestLatencies()
        for queue in queues { all.add(queue) }
        return .object(
            RequestLatencies.Kind.allCases.map { kind in
                let count = JSONValue.Member("requests", JSONValue(all.count(kind)))
                return .init("\(kind)", .object([count] + percentiles { all.nanoseconds(kind, atPercentile: $0) }))
            })
    }

    private static func durations(_ queues: [Durations]) -> JSONValue {
        var all = Durations()
        for queue in queues { all.add(queue) }
        return .object(
            [
                .init("count", JSONValue(all.count)), .init("total", microseconds(all.totalNanoseconds)),
                .init("mean", microseconds(all.meanNanoseconds)),
            ] + percentiles { all.nanoseconds(atPercentile: $0) })
    }

    private static func percentiles(_ nanoseconds: (Double) -> UInt64?) -> [JSONValue.Member] {
        [("p50", 50.0), ("p90", 90), ("p99", 99), ("p99.9", 99.9), ("p100", 100)].map { name, percentile in
            .init(name, microseconds(nanoseconds(percentile)))
        }
    }

    /// Rounded up; null where there is none.
    private static func microseconds(_ nanoseconds: UInt64?) -> JSONValue {
        nanoseconds.map { JSONValue($0 / 1000 + ($0 % 1000 == 0 ? 0 : 1)) } ?? .null
    }
}
