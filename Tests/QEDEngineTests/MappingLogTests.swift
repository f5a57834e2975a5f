import BlockStorage
import Platform
import Testing

@testable import QEDEngine

/// The log in shared memory: valid between any two instructions, and another image's log is none.
@Suite struct MappingLogTests {
    private let owner = MappingLog.Owner(
        image: FileIdentity(high: 8, low: 4711), boot: BootIdentity(high: 3, low: 4))

    private func withMemory(capacity: Int, _ body: (UnsafeMutableRawPointer, Int) throws -> Void) rethrows {
        let size = MappingLog.sizeBytes(capacity: capacity)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0xA5, count: size)
        defer { memory.deallocate() }
        try body(memory, size)
    }

    @Test func whatWasRecordedIsThereForTheNextProcess() throws {
        try withMemory(capacity: 8) { memory, size in
            #expect(MappingLog(adopting: memory, sizeBytes: size, for: owner) == nil, "nothing was formatted yet")
            var log = MappingLog(formatting: memory, capacity: 8, for: owner, session: 5)
            log.append(.table, index: 3, value: 0x50000, oldValue: 0)
            log.append(.entry, index: 77, value: 0x90000, oldValue: 1)
            let next = try #require(MappingLog(adopting: memory, sizeBytes: size, for: owner))
            #expect(
                next.uncommitted() == [
                    MappingLog.Record(sequence: 1, kind: .table, index: 3, value: 0x50000, oldValue: 0),
                    MappingLog.Record(sequence: 2, kind: .entry, index: 77, value: 0x90000, oldValue: 1),
                ])
            log.commit(through: 1)
            #expect(MappingLog(adopting: memory, sizeBytes: size, for: owner)?.uncommitted()?.map(\.index) == [77])
            var other = owner
            other.image = FileIdentity(high: 8, low: 4712)
            #expect(MappingLog(adopting: memory, sizeBytes: size, for: other) == nil)
            var later = owner
            later.boot = BootIdentity(high: 3, low: 5)
            #expect(MappingLog(adopting: memory, sizeBytes: size, for: later) == nil, "the power was cut")
            #expect(next.session == 5)
            let start = Array(UnsafeRawBufferPointer(start: memory, count: 64))
            #expect(MappingLog.boot(ofLogStartingWith: start) == owner.boot)
            #expect(MappingLog.boot(ofLogStartingWith: [UInt8](repeating: 0, count: 64)) == nil)
            #expect(MappingLog.boot(ofLogStartingWith: Array(start[..<47])) == nil)
            #expect(MappingLog(adopting: memory, sizeBytes: size - 32, for: owner) == nil)
        }
    }

    @Test func theRingGoesRoundAndIsNeverOverfull() throws {
        try withMemory(capacity: 4) { memory, size in
            var log = MappingLog(formatting: memory, capacity: 4, for: owner, session: 5)
            for number in 1...100 {
                #expect(log.hasRoom(1))
                log.append(.entry, index: UInt64(number), value: 1, oldValue: 0)
                if number % 4 == 0 {
                    #expect(!log.hasRoom(1))
                    log.commit(through: log.lastSequence - 1)
                }
                let next = try #require(MappingLog(adopting: memory, sizeBytes: size, for: owner))
                #expect(next.uncommitted()?.map(\.index) == Array((log.committedSequence + 1)...UInt64(number)))
                if number % 4 == 0 { log.commit(through: log.lastSequence) }
            }
        }
    }

    @Test("a failed sync is noted for whoever goes on, and what an earlier one has covered stays certain")
    func failedSync() throws {
        try withMemory(capacity: 8) { memory, size in
            var log = MappingLog(formatting: memory, capacity: 8, for: owner, session: 5)
            func adopted() throws -> MappingLog {
                try #require(MappingLog(adopting: memory, sizeBytes: size, for: owner))
            }
            log.append(.filledEntry, index: 1, value: 0x70000, oldValue: 0)
            log.syncBegan()
            // Too late for the sync that runs.
            log.append(.filledEntry, index: 2, value: 0x80000, oldValue: 0)
            log.syncSucceeded()
            #expect(try adopted().lossAfter == nil)
            log.syncBegan()
            log.syncFailed()
            #expect(try adopted().lossAfter == 1)
            // The kernel tells of a loss once: a sync that succeeds afterwards makes nothing certain.
            var next = try adopted()
            next.syncBegan()
            next.syncSucceeded()
            next.syncBegan()
            next.syncFailed()
            #expect(try adopted().lossAfter == 1)
            next.commit(through: next.lastSequence)
            next.forgetLoss()
            #expect(try adopted().lossAfter == nil)
        }
    }

    @Test("a sync that fails before any other has succeeded covers nothing, in a log that another process has left too")
    func firstSyncFails() throws {
        try withMemory(capacity: 8) { memory, size in
            var log = MappingLog(formatting: memory, capacity: 8, for: owner, session: 5)
            for index in 1...3 as ClosedRange<UInt64> { log.append(.filledEntry, index: index, value: index << 16, oldValue: 0) }
            log.commit(through: 1)
            var next = try #require(MappingLog(adopting: memory, sizeBytes: size, for: owner))
            next.syncBegan()
            next.syncFailed()
            #expect(next.lossAfter == 1)
            #expect(next.uncommitted()?.map(\.kind) == [.filledEntry, .filledEntry])
        }
    }

    @Test func fillsKeepTheirRoom() {
        withMemory(capacity: 4) { memory, _ in
            var log = MappingLog(formatting: memory, capacity: 4, for: owner, session: 5)
            log.reserve(3)
            #expect(log.hasRoom(1))
            #expect(!log.hasRoom(2))
            log.append(.entry, index: 1, value: 1, oldValue: 0)
            #expect(!log.hasRoom(1))
            log.release(3)
            #expect(log.hasRoom(3))
        }
    }

    /// A process dies between any two of the stores of an append, into a slot that was used before.
    @Test func aTornRecordDoesNotCount() throws {
        try withMemory(capacity: 2) { memory, size in
            var log = MappingLog(formatting: memory, capacity: 2, for: owner, session: 5)
            log.append(.entry, index: 10, value: 1, oldValue: 0)
            log.append(.entry, index: 11, value: 1, oldValue: 0)
            log.commit(through: 2)
            let before = Array(UnsafeRawBufferPointer(start: memory, count: size))
            log.append(.entry, index: 12, value: 0x70000, oldValue: 0)
            let after = Array(UnsafeRawBufferPointer(start: memory, count: size))
            // The append's stores in order: sequence 0, key, value, old value, sequence.
            let slot = 4096
            for storesDone in 0...5 {
                var torn = before
                if storesDone >= 1 { torn.replaceSubrange(slot..<(slot + 8), with: repeatElement(0, count: 8)) }
                for word in 1...3 where storesDone > word {
                    let range = (slot + word * 8)..<(slot + word * 8 + 8)
                    torn.replaceSubrange(range, with: after[range])
                }
                if storesDone == 5 { torn.replaceSubrange(slot..<(slot + 8), with: after[slot..<(slot + 8)]) }
                try torn.withUnsafeMutableBytes { bytes in
                    let copy = try #require(bytes.baseAddress)
                    let aligned = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
                    defer { aligned.deallocate() }
                    aligned.copyMemory(from: copy, byteCount: size)
                    let next = try #require(MappingLog(adopting: aligned, sizeBytes: size, for: owner))
                    #expect(next.uncommitted()?.map(\.index) == (storesDone == 5 ? [12] : []), "after \(storesDone) stores")
                }
            }
        }
    }
}
