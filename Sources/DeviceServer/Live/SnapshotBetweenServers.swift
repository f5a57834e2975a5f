import BlockStorage
import CSupport
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// A snapshot of a device whose server may make and rename no file (`Confinement`): that server closes the image well and leaves,
/// the process that was asked for the snapshot makes the overlay and sees to the names, and the next server, confined before it
/// reads a table, goes on over the snapshot. Requests wait meanwhile, for as long as closing and opening the image take.
///
/// Of what is in the image nothing but the header is read here.
///
/// Killed at any moment the next server finds the image or the overlay, as after a kill in `Snapshot`: the record tells of the
/// overlay before that has a name, and is right about it once the names are exchanged (`DeviceRecord.settled`).
struct SnapshotBetweenServers {
    let id: UInt32
    let registry: DeviceRegistry

    /// How long a server may take to make everything durable, and to end.
    private static let leavingTimeout = Duration.seconds(120)

    /// - Parameters: as of `Snapshot.take`.
    /// - Returns: how long requests had to wait, in microseconds.
    func take(at path: String, _ way: Snapshot.Way) throws -> UInt64 {
        // The next server waits for it, whoever starts that one: a supervisor, a service manager, or this process.
        let lock = try DeviceLock(ofDevice: id)
        guard let served = registry.record(of: id) else { throw WaitingDeviceError.notFound(UblkPaths.blockDevice(id)) }
        try refuse(path, way, of: served)
        let began = cs_monotonic_nanoseconds()
        _ = try ControlSocketClient.ask(.leave, of: served, registry)
        let deadline = Deadline(after: Self.leavingTimeout)
        while served.server.isRunning, !deadline.hasPassed { cs_sleep_milliseconds(5) }
        let result = Result { try change(served, path, way) }
        lock.release()
        if let record = registry.record(of: id), let device = try WaitingDevice(record, UblkControlDevice()) {
            _ = try device.recover()
        }
        try result.get()
        return (cs_monotonic_nanoseconds() - began) / 1000
    }

    /// What is known to go wrong is said while the device is served.
    private func refuse(_ path: String, _ way: Snapshot.Way, of record: DeviceRecord) throws {
        guard record.changesImage else { throw SnapshotError.cannot("\(record.imagePath) is only read: it is its own snapshot") }
        let policy = try BackingChoice(arguments: record.backingArguments).policy()
        guard !policy.refusesBackingFiles else {
            throw SnapshotError.cannot(
                "\(record.imagePath) may name no other file, and would lie over the snapshot; add it with --backing-dir for that "
                    + "directory")
        }
        guard !ImageCreation(path: path).exists else { throw SnapshotError.exists(path) }
        let chain = try ImageChain.open(
            path: record.imagePath, isReadOnly: true, caching: .buffered, locking: .none, policy: policy)
        // Else the next server could not open it.
        try Snapshot.checkRoom(in: chain)
        _ = try Snapshot.names(of: chain[0].file, servedAt: record.imagePath, path, way, policy)
    }

    /// The image is nobody's now, and no server can have the device.
    private func change(_ served: DeviceRecord, _ path: String, _ way: Snapshot.Way) throws {
        guard let record = registry.record(of: id), record.server == served.server, !record.server.isRunning,
            let mark = record.leftImage
        else {
            throw SnapshotError.busy("the server of \(UblkPaths.blockDevice(id)) has not left its image as it should; try again")
        }
        let image = try ImageFile(
            path: record.imagePath, access: .readWrite, caching: .buffered, lock: .writable, isDevices: true)
        guard image.identity == record.image, ImageMark(descriptor: image.descriptor) == mark else {
            throw ServerError.imageWritten(path: record.imagePath)
        }
        let header = try ImageHeader(reading: image).header
        let policy = try BackingChoice(arguments: record.backingArguments).policy()
        let names = try Snapshot.names(of: image, servedAt: record.imagePath, path, way, policy)
        var made: FileIdentity?
        var isOurs = true
        defer { if isOurs { abandon(made, names, record) } }
        try OverlayFile(
            path: names.overlayPath, sizeBytes: header.imageSizeBytes, geometry: header.geometry, backingName: names.backingName,
            like: image
        ).create { overlay throws(Errno) in
            made = overlay
            do throws(RegistryError) {
                try registry.change(record) { record in
                    record.nextImage = overlay
                    record.nextSnapshot = path
                    // Of the image, which the overlay is not.
                    record.leftImage = nil
                }
            } catch { throw error.errno }
        }
        guard let made else { preconditionFailure("an overlay without a file") }
        // By the snapshot's name: the next server must be able to.
        let overlay = try ImageFile(
            path: names.overlayPath, access: .readOnly, caching: .buffered, lock: nil, policy: names.areExchanged ? policy : nil)
        if names.areExchanged { try names.exchange(image: image.identity, overlay: made) }
        isOurs = false
        if let errno = names.sync() { throw ServerError.notClosed(path: names.snapshotPath, errno) }
        // What it says by now, if it can be seen that the names are exchanged already.
        try registry.change(record) { now in
            now.nextImage = nil
            now.nextSnapshot = nil
            now.unsealedSnapshot = nil
            if !names.areExchanged { now.imagePath = names.imagePath }
            now.backingFiles = [record.image] + record.backingFiles
            now.image = made
            now.leftImage = ImageMark(descriptor: overlay.descriptor)
        }
    }

    /// The image is the device's as before.
    private func abandon(_ made: FileIdentity?, _ names: SnapshotNames, _ record: DeviceRecord) {
        if let made, FileIdentity(ofFileAt: names.overlayPath) == made { unlink(names.overlayPath) }
        try? registry.change(record) { $0 = record }
    }
}
