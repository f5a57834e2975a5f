import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// `fork`: a snapshot of a device, and an overlay over it for another one.
package enum DeviceFork {
    /// Both files, by absolute paths, and how long the device's requests had to wait.
    package struct Outcome: Sendable {
        package var snapshot: String
        package var clone: String
        package var waitMicroseconds: JSONValue
    }

    /// - Parameters:
    ///   - name: of the device, as `DeviceReference` reads it.
    ///   - path: of the snapshot.
    ///   - clonePath: of the overlay, which belongs to the caller.
    ///   - mountPoint: as for a snapshot.
    /// - Throws: also `ForkError`, when the snapshot is there and the clone is not.
    package static func take(
        ofDeviceNamed name: String, at path: String, cloneAt clonePath: String, freezing mountPoint: String? = nil,
        registry: DeviceRegistry = DeviceRegistry()
    ) throws -> Outcome {
        let clone = try AbsolutePath.ofFile(clonePath)
        // Else the snapshot would be taken first, and be in vain.
        guard try !ImageCreation(path: clone).exists && clone != AbsolutePath.ofFile(path) else {
            throw ForkError.exists(path: clonePath)
        }
        guard access(FilePath(clone).removingLastComponent().string, W_OK) == 0 else {
            throw ForkError.noDirectory(path: clonePath, Errno(rawValue: errno))
        }
        let answer = try DeviceSnapshot.take(ofDeviceNamed: name, at: path, freezing: mountPoint, registry: registry)
        let snapshot = try AbsolutePath.ofFile(path)
        do {
            let geometry = try ImageDescription(reading: snapshot).header.geometry
            _ = try ImageCreation(
                path: clone, geometry: geometry,
                backing: ImageCreation.Backing(name: SnapshotNames.backingName(of: snapshot, from: clone), format: .qed)
            ).create()
        } catch {
            throw ForkError.noClone(snapshot: snapshot, reason: error)
        }
        return Outcome(snapshot: snapshot, clone: clone, waitMicroseconds: answer["microseconds"] ?? .null)
    }
}

/// Why there is no fork, in a sentence.
package enum ForkError: Error, CustomStringConvertible {
    /// Nothing was changed.
    case exists(path: String)
    case noDirectory(path: String, Errno)
    /// The snapshot was taken.
    case noClone(snapshot: String, reason: any Error)

    package var description: String {
        switch self {
        case .exists(let path): "\(path): exists already; give the clone another name"
        case .noDirectory(let path, let errno): "\(path): its directory cannot be written to: \(errno)"
        case .noClone(let snapshot, let reason):
            "\(reason); the snapshot \(snapshot) was taken, the device goes on over it, and an overlay over it can still be made "
                + "(qed-ublk create --backing)"
        }
    }
}
