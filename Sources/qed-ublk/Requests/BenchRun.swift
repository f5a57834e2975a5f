import BlockStorage
import CSupport
import DeviceServer
import Glibc
import Histogram
import Platform
import QEDChain
import QEDEngine

/// What a run does. Plain values: those of a command line are looked up at every use.
struct BenchWork {
    var count: Int
    var depth: Int
    var sizeBytes: UInt64
    var stepBytes: UInt64
    var deviceOffset: UInt64
    var isWrite: Bool
    /// 0: no flush but the last.
    var flushInterval: Int
    /// Whether a flush waits for all requests, and all requests for it.
    var drains: Bool
    var pattern: UInt8
    var isRandom: Bool
    var measuresLatency: Bool
}

/// The requests of a run under way.
struct BenchRun {
    private let work: BenchWork
    private let engine: LocalEngine
    private let queue: EngineQueue<FileStorage>
    private let buffers: UnsafeMutableRawPointer
    private var latencies: Histogram<UInt64>
    /// When the request of each slot was started; and the slots that are free, of which there are `freeCount`.
    // SAFETY: as many as there are slots; used by the run alone, and freed by `deallocate`.
    private let startOfSlot: UnsafeMutablePointer<UInt64>
    private let freeSlots: UnsafeMutablePointer<Int>
    private var freeCount: Int
    private let imageBytes: UInt64
    private var nextOffset: UInt64
    private var started = 0
    private var written = 0
    private var underWay = 0
    private var failure: Int32?
    private var isFlushing = false
    /// Of a run that writes: what makes it durable in the end.
    private(set) var lastFlushSeconds = 0.0
    private var randomState: UInt64 = 0x9e37_79b9_7f4a_7c15

    init(_ work: BenchWork, _ engine: LocalEngine) {
        self.work = work
        self.engine = engine
        queue = engine.queue
        let bytes = Int(work.sizeBytes) * work.depth
        buffers = .allocate(byteCount: bytes, alignment: 4096)
        buffers.initializeMemory(as: UInt8.self, repeating: work.pattern, count: bytes)
        latencies = Histogram(highestTrackableValue: 3_600_000_000_000, numberOfSignificantValueDigits: .three)
        startOfSlot = .allocate(capacity: work.depth + 1)
        startOfSlot.initialize(repeating: 0, count: work.depth + 1)
        freeSlots = .allocate(capacity: work.depth)
        for slot in 0..<work.depth { (freeSlots + slot).initialize(to: slot) }
        freeCount = work.depth
        imageBytes = engine.image.sizeBytes
        nextOffset = work.deviceOffset
    }

    func deallocate() {
        buffers.deallocate()
        startOfSlot.deallocate()
        freeSlots.deallocate()
    }

    /// The last slot is the flushes'.
    private var flushSlot: Int { work.depth }

    /// - Returns: the errno of the first request that failed.
    mutating func play() -> Int32? {
        let total = work.count
        var flushDue = false
        while failure == nil {
            while started < total, !flushDue, !(isFlushing && work.drains), freeCount > 0 {
                freeCount -= 1
                start(freeSlots[freeCount])
                if work.flushInterval > 0 && written % work.flushInterval == 0 { flushDue = true }
            }
            if flushDue, !isFlushing, !work.drains || underWay == 0 {
                flushDue = false
                isFlushing = true
                queue.start(flushSlot, BlockRequest(.flush))
            }
            reap()
            if started == total && underWay == 0 && !isFlushing && !flushDue { break }
            // Reads of what was never written are answered at once: then there is nothing to wait for.
            if !queue.hasFinished { engine.turn(waits: underWay > 0 || isFlushing) }
            reap()
        }
        while underWay > 0 || isFlushing {
            engine.turn(waits: true)
            reap()
        }
        if work.isWrite && failure == nil {
            // Told apart: neither qemu-img bench nor fio counts the flush with which they end.
            let start = BenchRun.nanoseconds()
            failure = engine.perform([BlockRequest(.flush)])[0] < 0 ? EIO : nil
            lastFlushSeconds = Double(BenchRun.nanoseconds() - start) / 1e9
        }
        return failure
    }

    @inline(__always)
    private mutating func start(_ slot: Int) {
        let size = work.sizeBytes
        if work.isRandom {
            randomState ^= randomState << 13
            randomState ^= randomState >> 7
            randomState ^= randomState << 17
            nextOffset = randomState % (imageBytes / size) * size
        } else if nextOffset > imageBytes - size {
            nextOffset %= imageBytes
            if nextOffset > imageBytes - size { nextOffset = 0 }
        }
        if work.measuresLatency { startOfSlot[slot] = BenchRun.nanoseconds() }
        queue.start(
            slot,
            BlockRequest(
                work.isWrite ? .write : .read, deviceOffset: nextOffset, byteCount: size,
                buffer: buffers + slot * Int(size)))
        engine.submitEarly()
        nextOffset += work.stepBytes
        started += 1
        written += work.isWrite ? 1 : 0
        underWay += 1
    }

    private mutating func reap() {
        while let (slot, result) = queue.nextFinished() {
            if result < 0 && failure == nil { failure = -result }
            if slot == flushSlot {
                isFlushing = false
                continue
            }
            if work.measuresLatency { latencies.record(BenchRun.nanoseconds() - startOfSlot[slot]) }
            freeSlots[freeCount] = slot
            freeCount += 1
            underWay -= 1
        }
    }

    func report(seconds: Double, processorSeconds: Double, statistics: EngineStatistics, turns: UInt64) -> JSONValue {
        let operations = statistics.counters.map { JSONValue.Member($0.name, JSONValue($0.value)) }
        let perPage = Double(statistics.l2EntriesWritten) / Double(max(statistics.l2PageWrites, 1))
        let percentiles = [50.0, 90, 99, 99.9, 100].map {
            JSONValue.Member("p\($0 == 99.9 ? "99.9" : "\(Int($0))")", JSONValue(latencies.valueAtPercentile($0) / 1000))
        }
        return .object([
            .init("seconds", .number(seconds)), .init("last-flush-seconds", .number(lastFlushSeconds)),
            .init("processor-seconds", .number(processorSeconds)),
            .init("requests", JSONValue(work.count)),
            .init("bytes", JSONValue(UInt64(work.count) * work.sizeBytes)),
            .init("iops", .number((Double(work.count) / seconds).rounded())),
            .init("storage-operations", .object(operations)), .init("l2-entries-per-write", .number(perPage)),
            .init("submissions", JSONValue(turns)), .init("latency-microseconds", .object(percentiles)),
        ])
    }

    /// What the thread has cost so far, in user space and in the kernel.
    static func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    static func nanoseconds() -> UInt64 { cs_monotonic_nanoseconds() }

    /// A number with so many digits behind the point.
    static func fixed(_ value: Double, digits: Int) -> String {
        var scale: UInt64 = 1
        for _ in 0..<digits { scale *= 10 }
        let scaled = UInt64((value * Double(scale)).rounded())
        let fraction = String(scaled % scale)
        return "\(scaled / scale).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
    }
}
