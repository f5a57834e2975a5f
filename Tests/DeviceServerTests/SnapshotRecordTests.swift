import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDFormat
import TestSupport
import Testing

@testable import DeviceServer

/// What a record tells of a snapshot that its server did not live to finish: the image's path decides what has come about.
struct SnapshotRecordTests {
    private let directory: TemporaryDirectory
    private let image: String
    private let snapshot: String
    private let file: ImageFile

    init() throws {
        directory = try TemporaryDirectory()
        image = directory.path("image.qed")
        snapshot = directory.path("snapshot.qed")
        _ = try ImageCreation(path: image, sizeBytes: 1 << 20).create()
        file = try ImageFile(path: image, access: .readWrite, caching: .buffered, lock: nil)
    }

    private func identity(_ path: String) throws -> FileIdentity { try #require(FileIdentity(ofFileAt: path)) }

    private func makeOverlay(_ names: SnapshotNames) throws -> DeviceRecord {
        var noted: FileIdentity?
        try OverlayFile(
            path: snapshot, sizeBytes: 1 << 20, geometry: .standard, backingName: names.backingName, like: file
        ).create { noted = $0 }
        #expect(noted == FileIdentity(ofFileAt: snapshot))
        var record = DeviceRecord(
            deviceID: 3, server: ProcessIdentity(id: 4711, startTicks: .max), imagePath: image, image: file.identity,
            backingFiles: [FileIdentity(high: 7, low: 7)], deviceNonce: 1, isReadOnly: false, startedAt: 0)
        record.nextImage = noted
        record.nextSnapshot = snapshot
        return record
    }

    @Test func anOverlayThatHasNotBecomeTheImageIsTakenAway() throws {
        let record = try makeOverlay(SnapshotNames(of: file, at: image, snapshotPath: snapshot))
        #expect(record.settled == record)
        #expect(DeviceRecord(record.json) == record)
        UnsealedSnapshot.removeUnusedOverlay(of: record)
        #expect(FileIdentity(ofFileAt: snapshot) == nil)
        #expect(FileIdentity(ofFileAt: image) == file.identity)
        // Another file of that name is nobody's but its owner's.
        try directory.write("x", to: "snapshot.qed")
        UnsealedSnapshot.removeUnusedOverlay(of: record)
        #expect(FileIdentity(ofFileAt: snapshot) != nil)
    }

    @Test func noFileBeneathIsSomethingElseThanNoChange() throws {
        var record = try makeOverlay(SnapshotNames(of: file, at: image, snapshotPath: snapshot))
        record.nextBackingFiles = []
        #expect(DeviceRecord(record.json)?.nextBackingFiles == [])
        record.nextBackingFiles = nil
        #expect(try #require(DeviceRecord(record.json)).nextBackingFiles == nil)
    }

    @Test func anOverlayThatIsTheImageLiesOverTheSnapshot() throws {
        let names = try SnapshotNames(of: file, at: image, snapshotPath: snapshot)
        #expect(names.backingName == "snapshot.qed")
        let record = try makeOverlay(names)
        let overlay = try identity(snapshot)
        try names.exchange(image: file.identity, overlay: overlay)
        #expect(names.sync() == nil)
        #expect(try identity(snapshot) == file.identity)

        let settled = record.settled
        #expect(settled.image == overlay)
        #expect(settled.backingFiles == [file.identity, FileIdentity(high: 7, low: 7)])
        #expect(settled.unsealedSnapshot == snapshot)
        #expect(settled.nextImage == nil && settled.nextSnapshot == nil)
        #expect(settled.settled == settled)
        #expect(DeviceRecord(settled.json) == settled)
        UnsealedSnapshot.removeUnusedOverlay(of: settled)
        #expect(try identity(image) == overlay)
        let chain = try ImageChain.open(path: image, isReadOnly: true, locking: .none)
        #expect(chain.map(\.file.identity) == [overlay, file.identity])
    }

    @Test("the log goes of a snapshot whose server died between the seal and that")
    func logOfASealedSnapshot() throws {
        let names = try SnapshotNames(of: file, at: image, snapshotPath: snapshot)
        let record = try makeOverlay(names)
        try names.exchange(image: file.identity, overlay: identity(snapshot))
        let registry = DeviceRegistry(directory: directory.path("run"))
        let log = try SessionFile(image: file.identity, registry: registry)
        let path = SessionLogPath.path(inDirectory: registry.directory, image: file.identity)
        #expect(FileIdentity(ofFileAt: path) != nil)
        let unsealed = try #require(UnsealedSnapshot(record.settled))
        #expect(try unsealed.seal(ServerConfiguration(imagePath: image), registry: registry) == 0)
        #expect(FileIdentity(ofFileAt: path) == nil)
        withExtendedLifetime(log) {}
    }

    @Test("an image that has been put back lies over what it was put back to, and what it was goes")
    func rollback() throws {
        let place = image + Rollback.nameSuffix
        let names = try SnapshotNames(of: file, at: image, snapshotPath: place)
        let base = FileIdentity(high: 8, low: 8)
        var noted: FileIdentity?
        try OverlayFile(
            path: place, sizeBytes: 1 << 20, geometry: .standard, backingName: "base.qed", like: file
        ).create { noted = $0 }
        let overlay = try #require(noted)
        var record = DeviceRecord(
            deviceID: 3, server: ProcessIdentity(id: 4711, startTicks: .max), imagePath: image, image: file.identity,
            backingFiles: [FileIdentity(high: 7, low: 7), base], deviceNonce: 1, isReadOnly: false, startedAt: 0)
        record.nextImage = overlay
        record.nextSnapshot = place
        record.nextBackingFiles = [base]
        record.mergedFiles = [MergedFiles.File(path: "/merged", file: base)]
        record.rollback = RolledBackImage(file: .init(path: place, file: file.identity), backingFiles: [base])
        #expect(record.settled == record)
        #expect(DeviceRecord(record.json) == record)

        try names.exchange(image: file.identity, overlay: overlay)
        let settled = record.settled
        #expect(settled.image == overlay && settled.backingFiles == [base])
        #expect(settled.nextImage == nil && settled.nextSnapshot == nil && settled.unsealedSnapshot == nil)
        #expect(settled.nextBackingFiles == nil && settled.mergedFiles.isEmpty)
        #expect(DeviceRecord(settled.json) == settled && settled.settled == settled)
        let registry = DeviceRegistry(directory: directory.path("run"))
        let log = try SessionFile(image: file.identity, registry: registry)
        try settled.rollback?.finish(imagePath: image, registry: registry)
        #expect(try identity(image) == overlay)
        #expect(FileIdentity(ofFileAt: place) == nil)
        #expect(FileIdentity(ofFileAt: SessionLogPath.path(inDirectory: registry.directory, image: file.identity)) == nil)
        // Another file of that name is nobody's but its owner's.
        try directory.write("x", to: "image.qed" + Rollback.nameSuffix)
        try settled.rollback?.finish(imagePath: image, registry: registry)
        #expect(FileIdentity(ofFileAt: place) != nil)
        withExtendedLifetime(log) {}
    }

    @Test func anotherFileUnderTheSnapshotsNameIsRefused() throws {
        let names = try SnapshotNames(of: file, at: image, snapshotPath: snapshot)
        let record = try makeOverlay(names)
        try names.exchange(image: file.identity, overlay: identity(snapshot))
        try #require(rename(snapshot, directory.path("aside.qed")) == 0)
        _ = try ImageCreation(path: snapshot, sizeBytes: 1 << 20).create()
        let unsealed = try #require(UnsealedSnapshot(record.settled))
        do throws(ServerError) {
            _ = try unsealed.seal(ServerConfiguration(imagePath: image))
            Issue.record("another file was sealed")
        } catch {
            guard case .snapshotReplaced(snapshot, image: image) = error else { throw error }
        }
    }

    @Test func namesThatWereChangedMeanwhileAreNotExchanged() throws {
        let names = try SnapshotNames(of: file, at: image, snapshotPath: snapshot)
        _ = try makeOverlay(names)
        let overlay = try identity(snapshot)
        let other = FileIdentity(high: 1, low: 1)
        #expect(throws: SnapshotError.self) { try names.exchange(image: other, overlay: overlay) }
        #expect(throws: SnapshotError.self) { try names.exchange(image: file.identity, overlay: other) }
        #expect(try identity(image) == file.identity && identity(snapshot) == overlay)
    }

    @Test func namesAreRelativeOnlyWhereTheyLeadToTheSameFile() throws {
        try #require(mkdir(directory.path("links"), 0o755) == 0)
        let link = directory.path("links/image.qed")
        try #require(symlink("../image.qed", link) == 0)
        let throughLink = try SnapshotNames(of: file, at: link, snapshotPath: snapshot)
        #expect(throughLink.imagePath.hasSuffix("/image.qed") && !throughLink.imagePath.contains("links"))
        #expect(throughLink.backingName == snapshot)
        #expect(throughLink.backingName(of: directory.path("base.qed")) == directory.path("base.qed"))
        let direct = try SnapshotNames(of: file, at: image, snapshotPath: snapshot)
        #expect(direct.backingName(of: directory.path("base.qed")) == "base.qed")
        #expect(direct.backingName(of: directory.path("links/base.qed")) == directory.path("links/base.qed"))
        let elsewhere = directory.path("links/snapshot.qed")
        #expect(try SnapshotNames(of: file, at: image, snapshotPath: elsewhere).backingName == elsewhere)
    }

    @Test func anImageThatNamesItsBaseRelativelyStaysInItsDirectory() throws {
        try #require(mkdir(directory.path("other"), 0o755) == 0)
        let overlay = directory.path("overlay.qed")
        _ = try ImageCreation(path: overlay, backing: .init(name: "image.qed", format: .qed)).create()
        let top = try ImageFile(path: overlay, access: .readWrite, caching: .buffered, lock: nil)
        try SnapshotNames(of: top, at: overlay, snapshotPath: snapshot).checkBackingName(of: top)
        let other = try SnapshotNames(of: top, at: overlay, snapshotPath: directory.path("other/snapshot.qed"))
        #expect(throws: SnapshotError.self) { try other.checkBackingName(of: top) }
        // One without a backing file may go anywhere.
        try SnapshotNames(of: file, at: image, snapshotPath: directory.path("other/snapshot.qed")).checkBackingName(of: file)
    }

    @Test func aRecordThatIsGoneOrAnothersIsWrittenAgain() throws {
        let registry = DeviceRegistry(directory: directory.path("run"))
        let own = try makeOverlay(SnapshotNames(of: file, at: image, snapshotPath: snapshot))
        try registry.change(own) { $0.hasFailed = true }
        #expect(registry.record(of: 3)?.hasFailed == true)
        // What another thread has noted stays.
        try registry.change(own) { $0.unsealedSnapshot = "/snapshot" }
        #expect(registry.record(of: 3)?.hasFailed == true && registry.record(of: 3)?.unsealedSnapshot == "/snapshot")
        var foreign = own
        foreign.deviceNonce = 2
        foreign.unsealedSnapshot = "/foreign"
        try registry.record(foreign)
        try registry.change(own) { $0.hasFailed = false }
        #expect(registry.record(of: 3) == own)
    }
}
