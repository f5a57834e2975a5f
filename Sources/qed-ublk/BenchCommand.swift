import ArgumentParser
import BlockStorage
import DeviceServer
import Glibc
import Histogram
import QEDEngine

/// Drives the engine in this process the way `qemu-img bench` drives QEMU's block layer, with the same options.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure the engine on an image, without a device.",
        discussion: """
            Takes the options of 'qemu-img bench', so that the two can be run in turn. Writes (-w) change the image.

            Example: qed-ublk bench -w -c 20000 -d 32 -s 4k -S 64k -t none disk.qed

            Exit status:
            \(ExitStatus.table)
            """)

    enum Cache: String, ExpressibleByArgument, CaseIterable {
        case none
        case writeback

        var fileCaching: ImageFile.Caching { self == .none ? .directWherePossible : .buffered }
    }

    @Argument(help: "The image.", transform: PathArgument.parse)
    var image: String

    @Option(name: [.customShort("c"), .long], help: "Requests in all.")
    var count = 75_000

    @Option(name: [.customShort("d"), .long], help: "Requests under way at once.")
    var depth = 64

    @Option(name: [.customShort("s"), .long], help: "Size of a request.", transform: SizeArgument.parse)
    var bufferSize: UInt64 = 4096

    @Option(name: [.customShort("S"), .long], help: "Distance of the next request; the request's size if not given.",
        transform: SizeArgument.parse)
    var stepSize: UInt64?

    @Option(name: [.customShort("o"), .long], help: "Where to begin.", transform: SizeArgument.parse)
    var offset: UInt64 = 0

    @Flag(name: [.customShort("w"), .long], help: "Write instead of read.")
    var write = false

    @Option(help: "Flush after so many writes; 0: never but at the end.")
    var flushInterval = 0

    @Flag(help: "Go on while a flush runs, instead of waiting for all writes before and for the flush.")
    var noDrain = false

    @Option(name: [.customShort("t"), .long], help: "none: past the page cache; writeback: through it.")
    var cache = Cache.writeback

    @Option(help: "The same for backing files; they are read through the page cache, as a device does, if not given.")
    var backingCache = Cache.writeback

    @Option(help: "The byte that is written.")
    var pattern: UInt8 = 0

    @Flag(help: "At offsets drawn at random from the image, each a multiple of the request's size, instead of in steps.")
    var random = false

    @Flag(help: "As JSON, with what the storage was asked for.")
    var json = false

    func validate() throws {
        guard count > 0 else { throw ValidationError("--count must be more than 0") }
        guard (1...1024).contains(depth) else { throw ValidationError("--depth must be between 1 and 1024") }
        guard bufferSize > 0, bufferSize <= 64 << 20, bufferSize % 512 == 0 else {
            throw ValidationError("--buffer-size must be a multiple of 512 up to 64M")
        }
        guard flushInterval >= 0, write || flushInterval == 0 else {
            throw ValidationError("--flush-interval goes with --write")
        }
    }

    func run() throws {
        let engine = try LocalEngine(
            path: image, options: ImageOptions(isReadOnly: !write), depth: depth + 1,
            largestRequestBytes: Int(bufferSize), caching: cache.fileCaching,
            backingCaching: backingCache.fileCaching)
        guard offset % 512 == 0, (stepSize ?? bufferSize) % 512 == 0, bufferSize <= engine.image.sizeBytes,
            offset <= engine.image.sizeBytes - bufferSize
        else {
            engine.abandon()
            throw ValidationError("the image is too small for these offsets, or they are no multiples of 512")
        }
        var run = try BenchRun(self, engine)
        defer { run.deallocate() }
        let start = BenchRun.nanoseconds()
        let failure = run.play()
        let seconds = Double(BenchRun.nanoseconds() - start) / 1e9
        let statistics = engine.queue.statistics
        let turns = engine.turns
        try engine.close()
        if let failure { throw BenchError(errno: failure) }
        if json {
            try printOutput(run.report(seconds: seconds, statistics: statistics, turns: turns).indented())
        } else {
            try printOutput("Run completed in \(BenchRun.fixed(seconds, digits: 3)) seconds.")
        }
    }
}

/// The requests of a run under way.
private struct BenchRun {
    let command: BenchCommand
    let engine: LocalEngine
    private let buffers: UnsafeMutableRawPointer
    private var latencies: Histogram<UInt64>
    private var startOfSlot: [UInt64]
    private var freeSlots: [Int]
    private var nextOffset: UInt64
    private var started = 0
    private var written = 0
    private var underWay = 0
    private var failure: Int32?
    private var isFlushing = false
    private var randomState: UInt64 = 0x9e37_79b9_7f4a_7c15

    init(_ command: BenchCommand, _ engine: LocalEngine) throws {
        self.command = command
        self.engine = engine
        let bytes = Int(command.bufferSize) * command.depth
        buffers = .allocate(byteCount: bytes, alignment: 4096)
        buffers.initializeMemory(as: UInt8.self, repeating: command.pattern, count: bytes)
        latencies = Histogram(highestTrackableValue: 3_600_000_000_000, numberOfSignificantValueDigits: .three)
        startOfSlot = Array(repeating: 0, count: command.depth + 1)
        freeSlots = Array((0..<command.depth).reversed())
        nextOffset = command.offset
    }

    func deallocate() { buffers.deallocate() }

    /// The last slot is the flushes'.
    private var flushSlot: Int { command.depth }

    /// - Returns: the errno of the first request that failed.
    mutating func play() -> Int32? {
        let total = command.count
        var flushDue = false
        while failure == nil {
            while started < total, !flushDue, !(isFlushing && !command.noDrain), let slot = freeSlots.popLast() {
                start(slot)
                if command.flushInterval > 0 && written % command.flushInterval == 0 { flushDue = true }
            }
            if flushDue, !isFlushing, command.noDrain || underWay == 0 {
                flushDue = false
                isFlushing = true
                engine.queue.start(flushSlot, BlockRequest(.flush))
            }
            reap()
            if started == total && underWay == 0 && !isFlushing && !flushDue { break }
            if !engine.queue.hasFinished { engine.turn(waits: true) }
            reap()
        }
        while underWay > 0 || isFlushing {
            engine.turn(waits: true)
            reap()
        }
        if command.write && failure == nil {
            // qemu-img bench ends with a flush too, when it closes the image.
            failure = engine.perform([BlockRequest(.flush)])[0] < 0 ? EIO : nil
        }
        return failure
    }

    private mutating func start(_ slot: Int) {
        let size = command.bufferSize
        let imageBytes = engine.image.sizeBytes
        if command.random {
            randomState ^= randomState << 13
            randomState ^= randomState >> 7
            randomState ^= randomState << 17
            nextOffset = randomState % (imageBytes / size) * size
        } else if nextOffset > imageBytes - size {
            nextOffset %= imageBytes
            if nextOffset > imageBytes - size { nextOffset = 0 }
        }
        startOfSlot[slot] = BenchRun.nanoseconds()
        engine.queue.start(
            slot,
            BlockRequest(
                command.write ? .write : .read, deviceOffset: nextOffset, byteCount: size,
                buffer: buffers + slot * Int(size)))
        nextOffset += command.stepSize ?? size
        started += 1
        written += command.write ? 1 : 0
        underWay += 1
    }

    private mutating func reap() {
        while let (slot, result) = engine.queue.nextFinished() {
            if result < 0 && failure == nil { failure = -result }
            if slot == flushSlot {
                isFlushing = false
                continue
            }
            latencies.record(BenchRun.nanoseconds() - startOfSlot[slot])
            freeSlots.append(slot)
            underWay -= 1
        }
    }

    func report(seconds: Double, statistics: EngineStatistics, turns: UInt64) -> JSONValue {
        let operations = statistics.counters.map { JSONValue.Member($0.name, JSONValue($0.value)) }
        let perPage = Double(statistics.l2EntriesWritten) / Double(max(statistics.l2PageWrites, 1))
        let percentiles = [50.0, 90, 99, 99.9, 100].map {
            JSONValue.Member("p\($0 == 99.9 ? "99.9" : "\(Int($0))")", JSONValue(latencies.valueAtPercentile($0) / 1000))
        }
        return .object([
            .init("seconds", .number(seconds)), .init("requests", JSONValue(command.count)),
            .init("bytes", JSONValue(UInt64(command.count) * command.bufferSize)),
            .init("iops", .number((Double(command.count) / seconds).rounded())),
            .init("storage-operations", .object(operations)), .init("l2-entries-per-write", .number(perPage)),
            .init("submissions", JSONValue(turns)), .init("latency-microseconds", .object(percentiles)),
        ])
    }

    static func nanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// A number with so many digits behind the point.
    static func fixed(_ value: Double, digits: Int) -> String {
        var scale: UInt64 = 1
        for _ in 0..<digits { scale *= 10 }
        let scaled = UInt64((value * Double(scale)).rounded())
        let fraction = String(scaled % scale)
        return "\(scaled / scale).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
    }
}

/// A request of the run failed.
private struct BenchError: ReportableError {
    let errno: Int32
    var exitStatus: ExitStatus { .failure }
    var description: String { "a request failed: \(String(cString: strerror(errno)))" }
}
