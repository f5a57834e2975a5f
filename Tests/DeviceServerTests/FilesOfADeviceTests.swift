import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import TestSupport
import Testing
import Ublk

@testable import DeviceServer

/// A device goes on with the files that it was made of, or not at all.
struct FilesOfADeviceTests {
    private let directory: TemporaryDirectory
    private let image: String
    private let base: String

    init() throws {
        directory = try TemporaryDirectory()
        image = directory.path("image.qed")
        base = try directory.write(String(repeating: "b", count: 4096), to: "base.raw")
        _ = try ImageCreation(path: image, backing: .init(name: base, format: .raw)).create()
    }

    private func record() throws -> DeviceRecord {
        DeviceRecord(
            deviceID: 3, server: ProcessIdentity(id: 4711, startTicks: .max), imagePath: image,
            image: try #require(FileIdentity(ofFileAt: image)), backingFiles: [try #require(FileIdentity(ofFileAt: base))],
            deviceNonce: 1, isReadOnly: false, startedAt: 0)
    }

    private func expectAnotherFile(_ record: DeviceRecord, _ path: String) {
        do throws(ServerError) {
            _ = try LeftImage.complete(record, backing: .plainFiles) { _ in }
            Issue.record("the image was opened")
        } catch {
            guard case .anotherFile(path, id: 3) = error else {
                Issue.record("\(error)")
                return
            }
            #expect("\(error)".contains("put that file back in its place"))
        }
    }

    @Test func anotherImage() throws {
        let record = try self.record()
        try #require(rename(image, directory.path("aside.qed")) == 0)
        _ = try ImageCreation(path: image, backing: .init(name: base, format: .raw)).create()
        expectAnotherFile(record, image)
        // A copy of the same content is another file too.
        try #require(unlink(image) == 0)
        try #require(link(directory.path("aside.qed"), image) == 0)
        var other = record
        other.image = FileIdentity(high: record.image.high, low: record.image.low ^ 1)
        expectAnotherFile(other, image)
    }

    @Test func anotherBackingFile() throws {
        let record = try self.record()
        // The old one keeps its place on the file system, so that the new one cannot get that.
        try #require(rename(base, directory.path("aside.raw")) == 0)
        try directory.write(String(repeating: "b", count: 4096), to: "base.raw")
        expectAnotherFile(record, base)
        var fewer = record
        fewer.backingFiles = []
        expectAnotherFile(fewer, image)
    }
}
