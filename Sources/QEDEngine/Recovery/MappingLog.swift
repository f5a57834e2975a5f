import BlockStorage
import Platform
import Synchronization

/// What an image's tables will say once the next commit is done: a log in memory that outlives the process.
///
/// A write into a new cluster is acknowledged when its data is in the file, long before its L2 entry is. Against a power
/// cut that is right: nothing was promised. But when only the process dies, the file system above goes on and trusts every
/// completed write; so each change of an entry is recorded here first, in memory that another process can map (a file on a
/// tmpfs, mapped shared). Whoever opens the image next replays what no commit has covered.
///
/// The log is consistent between any two instructions. A record becomes valid with the store of its sequence number, the
/// last of its four words; a slot is only used again when the commit that covers its old record is complete; and a
/// commit is one store of a number. A power cut takes the log away with the memory, as it should; where the memory is a file
/// on a disk after all, it is another boot's log from then on, which is none.
///
/// A sync that fails may have lost what the records trust in. So that is noted here too, in one store, before anybody can
/// know of it: see `Record.Kind.filledEntry`.
///
///     0     magic, version and capacity
///     16    identity of the image's file
///     32    boot
///     48    session
///     64    sequence number of the last record that a commit has covered
///     72    0; once a sync has failed: 1 + the sequence number of the last record whose data an earlier sync had covered
///     4096  the records, a ring: sequence number, key, value, value before
///
/// Guarded by the image's lock.
public struct MappingLog: @unchecked Sendable {
    /// A change of one table entry.
    struct Record: Equatable {
        enum Kind: UInt64 {
            /// `index` is the cluster's number on the device, `value` its L2 entry.
            case entry = 0
            /// `index` is the L1 index, `value` the new table's file offset.
            case table = 1
            /// As `entry`, of a cluster that was filled over data of the backing file. It hides that data, so it must not
            /// be published where its own may be lost; any other entry then shows the zeros that were there before.
            case filledEntry = 2
        }

        var sequence: UInt64
        var kind: Kind
        var index: UInt64
        var value: UInt64
        var oldValue: UInt64
    }

    /// Which image a log belongs to, and for how long.
    public struct Owner: Equatable, Sendable {
        public var image: FileIdentity
        public var boot: BootIdentity

        public init(image: FileIdentity, boot: BootIdentity) {
            self.image = image
            self.boot = boot
        }
    }

    private static let magic: UInt64 = 0x676f_6c70_616d_6471
    private static let version: UInt64 = 2
    private static let recordBytes = 32
    private static let recordsOffset = 4096
    private static let committedOffset = 64
    private static let lossOffset = 72

    /// As many changes as one commit can be behind; at half of it a commit is started.
    public static let standardCapacity = 65536

    public static func sizeBytes(capacity: Int = standardCapacity) -> Int { recordsOffset + capacity * recordBytes }

    /// As many records as fit.
    public static func capacity(ofSizeBytes sizeBytes: Int) -> Int {
        max((sizeBytes - recordsOffset) / recordBytes, 0)
    }

    // SAFETY: `memory` is 8-byte aligned, `sizeBytes(capacity)` long, and outlives the log: whoever maps it sees to that.
    // The words that decide validity are written with release stores, in program order, by one thread at a time.
    private let memory: UnsafeMutableRawPointer
    private let capacity: UInt64
    private(set) var lastSequence: UInt64
    /// A random number that the image's header holds too: see `SessionNote`.
    let session: UInt64
    // SAFETY: kept alive by whoever keeps the memory mapped. Not counted here: the log is copied on every allocation.
    private let trace: Unmanaged<StoreTrace>?
    /// Records that fills under way will need.
    private var reservedCount: UInt64 = 0
    /// The last record when the running sync began, and of those that a completed one covers. The data of a record is in the
    /// file before it is made.
    private var syncingSequence: UInt64 = 0
    private var coveredSequence: UInt64 = 0

    /// An empty log in `memory`, whatever was there before.
    /// - Parameter trace: is told of every store; it must outlive the log.
    public init(
        formatting memory: UnsafeMutableRawPointer, capacity: Int = standardCapacity, for owner: Owner,
        session: UInt64, trace: StoreTrace? = nil
    ) {
        precondition(capacity > 0 && UInt(bitPattern: memory) % 8 == 0, "a log of no records, or in words of two")
        self.memory = memory
        self.capacity = UInt64(capacity)
        self.session = session
        self.trace = trace.map { Unmanaged.passUnretained($0) }
        lastSequence = 0
        // Invalid first, so that a process that dies meanwhile leaves nothing that looks like a log.
        store(0, at: 0)
        for index in 0..<capacity { store(0, at: sequenceOffset(UInt64(index))) }
        store(0, at: MappingLog.committedOffset)
        store(0, at: MappingLog.lossOffset)
        store(MappingLog.version << 32 | UInt64(capacity), at: 8)
        for (index, word) in MappingLog.words(of: owner).enumerated() { store(word, at: 16 + index * 8) }
        store(session, at: 48)
        store(MappingLog.magic, at: 0)
        precondition(committedSequence == 0 && lossAfter == nil, "a new log with an old one's records")
    }

    /// The log that another process has left in `memory`.
    /// - Parameter trace: as for a new log.
    /// - Returns: nil when there is none, or it is another image's, or another boot's.
    public init?(
        adopting memory: UnsafeMutableRawPointer, sizeBytes: Int, for owner: Owner, trace: StoreTrace? = nil
    ) {
        guard sizeBytes >= MappingLog.recordsOffset else { return nil }
        precondition(UInt(bitPattern: memory) % 8 == 0, "a log in words of two")
        self.memory = memory
        self.trace = trace.map { Unmanaged.passUnretained($0) }
        capacity = memory.loadUnaligned(fromByteOffset: 8, as: UInt64.self) & 0xffff_ffff
        session = memory.loadUnaligned(fromByteOffset: 48, as: UInt64.self)
        lastSequence = 0
        let owned = isSabotaged(.believeEveryBoot) ? 2 : 4
        guard word(0).load() == MappingLog.magic,
            word(8).load() >> 32 == MappingLog.version, capacity > 0,
            capacity <= UInt64(sizeBytes - MappingLog.recordsOffset) / UInt64(MappingLog.recordBytes),
            (0..<owned).map({ word(16 + $0 * 8).load() })[...] == MappingLog.words(of: owner)[..<owned]
        else { return nil }
        let committed = committedSequence
        lastSequence = committed
        coveredSequence = committed
        for index in 0..<capacity {
            lastSequence = max(lastSequence, word(sequenceOffset(index)).load())
        }
    }

    private static func words(of owner: Owner) -> [UInt64] {
        [owner.image.high, owner.image.low, owner.boot.high, owner.boot.low]
    }

    /// The boot of a log of which these are the first bytes; nil: it is no log of this version.
    public static func boot(ofLogStartingWith bytes: [UInt8]) -> BootIdentity? {
        guard bytes.count >= 48 else { return nil }
        let words = (0..<6).map { index in
            bytes[(index * 8)..<(index * 8 + 8)].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        }
        guard words[0] == magic, words[1] >> 32 == version else { return nil }
        return BootIdentity(high: words[4], low: words[5])
    }

    // MARK: - Writing

    /// Whether what another process has left can be written on: a commit covers all of it, it is as long as a new one would
    /// be, and its numbers do not run out.
    func canGoOn(capacity wanted: Int) -> Bool {
        capacity == UInt64(wanted) && committedSequence == lastSequence && lastSequence < 1 << 62
    }

    /// Whether `count` more records find room, besides those that fills have reserved.
    func hasRoom(_ count: Int) -> Bool {
        let reservedCount = isSabotaged(.ignoreLogReservations) ? 0 : reservedCount
        return lastSequence - committedSequence + reservedCount + UInt64(count) <= capacity
    }

    /// More than half of the log waits for a commit.
    var wantsCommit: Bool { lastSequence - committedSequence > capacity / 2 }

    mutating func reserve(_ count: UInt64) {
        precondition(hasRoom(Int(count)), "more log records are reserved than there are")
        reservedCount += count
    }

    mutating func release(_ count: UInt64) {
        precondition(reservedCount >= count, "more log records were released than reserved")
        reservedCount -= count
    }

    /// Records a change, before it is made.
    mutating func append(_ kind: Record.Kind, index: UInt64, value: UInt64, oldValue: UInt64) {
        precondition(
            lastSequence - committedSequence < capacity || isSabotaged(.ignoreLogReservations),
            "the mapping log is full")
        lastSequence += 1
        let offset = slotOffset(lastSequence)
        precondition(index < 1 << 62 && lastSequence > 0, "a change that no record can hold")
        // The old record of this slot is covered by a commit; it stops counting before its words change.
        store(isSabotaged(.recordCountsTooSoon) ? lastSequence : 0, at: offset)
        store(kind.rawValue << 62 | index, at: offset + 8)
        store(value, at: offset + 16)
        store(oldValue, at: offset + 24)
        store(lastSequence, at: offset)
    }

    /// Everything up to `sequence` is durable in the image.
    func commit(through sequence: UInt64) {
        precondition(sequence >= committedSequence && sequence <= lastSequence, "a commit of what was not recorded")
        store(sequence, at: MappingLog.committedOffset)
        precondition(committedSequence == sequence, "the log's memory is not kept")
    }

    // MARK: - Syncs of the data

    /// A sync of the image's file begins. One runs at a time.
    mutating func syncBegan() {
        precondition(syncingSequence <= lastSequence && coveredSequence <= lastSequence, "a sync of records that come later")
        syncingSequence = lastSequence
    }

    /// It has succeeded: what was recorded before it began has its data on the disk.
    mutating func syncSucceeded() { coveredSequence = max(coveredSequence, syncingSequence) }

    /// It has failed, and may have lost the data of every record that none before it had covered. A later one that succeeds
    /// tells nothing: the kernel reports a loss once. So the first note stays.
    func syncFailed() {
        if lossAfter == nil { store(coveredSequence + 1, at: MappingLog.lossOffset) }
    }

    /// The image has all that the log says, and the log goes on for what comes.
    func forgetLoss() {
        precondition(committedSequence == lastSequence, "a loss is forgotten that concerns records")
        if lossAfter != nil && !isSabotaged(.keepLoss) { store(0, at: MappingLog.lossOffset) }
    }

    /// The data of records after this one may be lost; nil: no sync has failed.
    var lossAfter: UInt64? {
        let note = word(MappingLog.lossOffset).load()
        return note == 0 ? nil : note - 1
    }

    @inline(__always)
    private func store(_ value: UInt64, at offset: Int) {
        word(offset).store(value)
        trace?._withUnsafeGuaranteedRef { $0.note(offset, value) }
    }

    // MARK: - Reading

    var committedSequence: UInt64 { word(MappingLog.committedOffset).load() }

    /// What no commit has covered, oldest first.
    /// - Returns: nil when the memory cannot be what a log has left there.
    func uncommitted() -> [Record]? {
        let committed = committedSequence
        guard lastSequence >= committed, lastSequence - committed <= capacity else { return nil }
        var records: [Record] = []
        records.reserveCapacity(Int(lastSequence - committed))
        var sequence = committed
        while sequence < lastSequence {
            sequence += 1
            let offset = slotOffset(sequence)
            let key = word(offset + 8).load()
            guard word(offset).load() == sequence, let kind = Record.Kind(rawValue: key >> 62) else {
                return nil
            }
            records.append(
                Record(
                    sequence: sequence, kind: kind, index: key & (1 << 62 - 1),
                    value: word(offset + 16).load(),
                    oldValue: word(offset + 24).load()))
        }
        precondition(UInt64(records.count) == lastSequence - committed, "a record is left out")
        return records
    }

    private func slotOffset(_ sequence: UInt64) -> Int {
        MappingLog.recordsOffset + Int((sequence - 1) % capacity) * MappingLog.recordBytes
    }

    private func sequenceOffset(_ index: UInt64) -> Int {
        MappingLog.recordsOffset + Int(index) * MappingLog.recordBytes
    }

    private func word(_ offset: Int) -> SharedWord { SharedWord(address: memory + offset) }
}

/// A word of shared memory: every load acquires, every store releases.
private struct SharedWord {
    // SAFETY: 8-byte aligned and inside the log's memory; `Atomic<UInt64>` has the layout of `UInt64`.
    private let pointer: UnsafeMutablePointer<Atomic<UInt64>>

    init(address: UnsafeMutableRawPointer) { pointer = address.assumingMemoryBound(to: Atomic<UInt64>.self) }

    @inline(__always) func load() -> UInt64 { pointer.pointee.load(ordering: .acquiring) }
    @inline(__always) func store(_ value: UInt64) { pointer.pointee.store(value, ordering: .releasing) }
}
