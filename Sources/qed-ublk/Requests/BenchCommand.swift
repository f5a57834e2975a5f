import ArgumentParser
import BlockStorage
import DeviceServer
import Glibc
import ImageTools
import Platform
import QEDChain
import QEDEngine
import SystemPackage

/// Drives the engine in this process the way `qemu-img bench` drives QEMU's block layer, with the same options.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure the engine on an image, without a device.",
        discussion: """
            Takes the options of 'qemu-img bench', so that the two can be run in turn. Writes (-w) change the image. As \
            JSON the result has latencies too, and what the storage was asked for. What was written is durable when the \
            program ends; the flush for that is not in the time, as it is not in qemu-img's, but in the JSON.

            Example: qed-ublk bench -w -c 20000 -d 32 -s 4k -S 64k -t none disk.qed

            Exit status:
            \(ExitStatus.table)
            """)

    enum Cache: String, ExpressibleByArgument, CaseIterable {
        case none
        case writeback

        var fileCaching: ImageFile.Caching { self == .none ? .directWherePossible : .buffered }
    }

    @Argument(help: "The image.", completion: .file(), transform: PathArgument.parse)
    var image: String

    @Option(name: [.customShort("c"), .long], help: "Requests in all.")
    var count = 75_000

    @Option(name: [.customShort("d"), .long], help: "Requests under way at once.")
    var depth = 64

    @Option(name: [.customShort("s"), .long], help: "Size of a request.", transform: SizeArgument.parse)
    var bufferSize: UInt64 = 4096

    @Option(
        name: [.customShort("S"), .long], help: "Distance of the next request; the request's size if not given.",
        transform: SizeArgument.parse)
    var stepSize: UInt64?

    @Option(name: [.customShort("o"), .long], help: "Where to begin. (default: 0)", transform: SizeArgument.parse)
    var offset: UInt64?

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

    @Option(help: "The byte that is written. (default: 0)")
    var pattern: UInt8?

    @Flag(help: "At offsets drawn at random from the image, each a multiple of the request's size, instead of in steps.")
    var random = false

    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var backing: BackingOptions

    func validate() throws {
        guard count > 0 else { throw ValidationError("--count must be more than 0") }
        guard (1...1024).contains(depth) else { throw ValidationError("--depth must be between 1 and 1024") }
        guard bufferSize > 0, bufferSize <= 64 << 20, bufferSize % 512 == 0 else {
            throw ValidationError("--buffer-size must be a multiple of 512 up to 64M")
        }
        guard flushInterval >= 0, write || flushInterval == 0 else {
            throw ValidationError("--flush-interval goes with --write")
        }
        guard write || pattern == nil else { throw ValidationError("--pattern goes with --write") }
        guard !noDrain || flushInterval > 0 else { throw ValidationError("--no-drain goes with --flush-interval") }
        guard !random || (stepSize == nil && offset == nil) else {
            throw ValidationError("--random draws the offsets: leave --step-size and --offset out")
        }
        guard !sharing.forceShare || !write else { throw ValidationError("--force-share is for reading only") }
    }

    func run() throws {
        let offset = self.offset ?? 0
        let engine: LocalEngine
        do {
            engine = try LocalEngine(
                path: image, options: ImageOptions(isReadOnly: !write), depth: depth + 1,
                largestRequestBytes: Int(bufferSize), caching: cache.fileCaching,
                backingCaching: backingCache.fileCaching, locking: sharing.forceShare ? .none : .all,
                policy: try backing.policy())
        } catch let error as Errno {
            throw ImageToolError.noRing(error)
        }
        let work = BenchWork(
            count: count, depth: depth, sizeBytes: bufferSize, stepBytes: stepSize ?? bufferSize, deviceOffset: offset,
            isWrite: write, flushInterval: flushInterval, drains: !noDrain, pattern: pattern ?? 0, isRandom: random,
            measuresLatency: output.format == .json)
        guard offset % 512 == 0, (stepSize ?? bufferSize) % 512 == 0, bufferSize <= engine.image.sizeBytes,
            offset <= engine.image.sizeBytes - bufferSize
        else {
            engine.abandon()
            throw ValidationError("the image is too small for these offsets, or they are no multiples of 512")
        }
        for file in engine.chain.compactMap({ $0.source as? ImageFile }) {
            let unit = UInt64(file.alignment.offsetBytes)
            guard offset % unit == 0, (stepSize ?? bufferSize) % unit == 0, bufferSize % unit == 0 else {
                engine.abandon()
                throw ValidationError(
                    "direct I/O on \(file.path.printable) takes multiples of \(unit) bytes: choose such sizes and offsets, or "
                        + "leave out '--cache none'")
            }
        }
        var run = BenchRun(work, engine)
        defer { run.deallocate() }
        let start = BenchRun.nanoseconds()
        let processorStart = BenchRun.processorSeconds()
        let failure = run.play()
        let seconds = Double(BenchRun.nanoseconds() - start) / 1e9 - run.lastFlushSeconds
        let processorSeconds = BenchRun.processorSeconds() - processorStart
        let statistics = engine.queue.statistics
        let turns = engine.turns
        try engine.close()
        if let failure { throw BenchError(errno: failure) }
        switch output.format {
        case .human: try printOutput("Run completed in \(BenchRun.fixed(seconds, digits: 3)) seconds.")
        case .json:
            let report = run.report(
                seconds: seconds, processorSeconds: processorSeconds, statistics: statistics, turns: turns)
            try printOutput(report.indented())
        }
    }
}

/// A request of the run failed.
private struct BenchError: ReportableError {
    let errno: Int32
    var exitStatus: ExitStatus { .failure }
    var description: String { "a request failed: \(String(cString: strerror(errno)))" }
}
