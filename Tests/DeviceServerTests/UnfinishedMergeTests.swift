import BlockStorage
import Platform
import Testing

@testable import DeviceServer

/// Which merges may go on where an earlier one was cut short.
@Suite struct UnfinishedMergeTests {
    private let files = (1...3).map { FileIdentity(high: 1, low: $0) }
    private let other = FileIdentity(high: 2, low: 1)
    private var unfinished: UnfinishedMerge { UnfinishedMerge(files: files, sizeBytes: 1 << 30, endBytes: 1 << 20) }

    @Test func theSameFilesAndThoseWithNewerOnesOverThem() {
        #expect(unfinished.newFiles(in: files, sizeBytes: 1 << 30) == 0)
        #expect(unfinished.newFiles(in: [other] + files, sizeBytes: 1 << 30) == 1)
    }

    @Test func noOthers() {
        for others in [[], Array(files.dropFirst()), Array(files.dropLast()), files + [other], files.reversed(), [other]] {
            #expect(unfinished.newFiles(in: others, sizeBytes: 1 << 30) == nil, "\(others)")
        }
        #expect(unfinished.newFiles(in: files, sizeBytes: 1 << 31) == nil, "the disk has grown")
    }

    @Test func aRecordTellsOfIt() {
        #expect(UnfinishedMerge(unfinished.json) == unfinished)
        #expect(UnfinishedMerge(.null) == nil)
        #expect(UnfinishedMerge(["identities": ["x"], "size": 1, "copied": 2]) == nil)
        var record = DeviceRecord(
            deviceID: 3, server: ProcessIdentity(id: 4711, startTicks: 1), imagePath: "/i", image: other, deviceNonce: 1,
            isReadOnly: false, startedAt: 0)
        record.unfinishedMerge = unfinished
        #expect(DeviceRecord(record.json) == record)
    }
}
