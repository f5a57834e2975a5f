import BlockStorage
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// Makes a device's disk larger while it works, under a mounted file system as well.
///
/// First the image: what becomes visible reads as zeros, durably, then its header has the new size, durably. Then the kernel's
/// disk. Killed between, the disk has its old size, and the image the one or the other; doing it again ends what was begun.
struct DiskGrowth: Sendable {
    let device: LiveDevice
    let features: UblkFeatures
    private var session: ImageSession { device.session }

    /// - Parameters:
    ///   - sizeBytes: new, or, where `isDifference`, more than there is.
    /// - Returns: the size in bytes that the disk has now: in whole blocks of it.
    func run(_ sizeBytes: UInt64, isDifference: Bool) throws(GrowthError) -> UInt64 {
        try device.changing { () throws(GrowthError) in
            do throws(SnapshotError) { try Snapshot(device).settle() } catch { throw .busy("\(error)") }
            guard features.contains(.updateSize) else {
                throw .cannot(
                    "\(UblkPaths.blockDevice(device.record.deviceID)): \(DriverAbility.newSize.lack), and a disk that was "
                        + "made there; remove the device, and resize its image")
            }
            let image = session.image
            guard !image.isReadOnly else { throw .cannot("\(session.path) is only read; its size stays") }
            let diskBytes: UInt64
            do throws(ServerError) { diskBytes = try device.rights.diskSizeBytes() } catch { throw .cannot("\(error)") }
            // The disk's own size counts, where an earlier attempt has come no further than the image.
            let newSize = try wanted(sizeBytes, moreThan: isDifference ? diskBytes : nil)
            let oldSize = image.headerSizeBytes
            if newSize > oldSize { try grow(image, from: oldSize, to: newSize) }
            do throws(ServerError) { try device.rights.growDisk(to: newSize) } catch {
                throw .cannot("\(session.path) has \(newSize) bytes now, and its disk does not: \(error); run it again")
            }
            try? device.note(.grows(toBytes: nil))
            return newSize
        }
    }

    private func wanted(_ sizeBytes: UInt64, moreThan diskBytes: UInt64?) throws(GrowthError) -> UInt64 {
        let oldSize = session.image.sizeBytes
        let (sum, overflow) = diskBytes?.addingReportingOverflow(sizeBytes) ?? (sizeBytes, false)
        let block = UInt64(max(session.blocks?.blockSizeBytes ?? 512, session.chain[0].file.alignment.offsetBytes))
        guard !overflow, sum <= QEDLimits.maximumImageSizeBytes else {
            throw .usage("\(session.path) has \(oldSize) bytes, and cannot be changed by that much")
        }
        let newSize = (sum + block - 1) / block * block
        guard newSize >= oldSize else {
            throw .usage(
                "\(session.path) would shrink from \(oldSize) to \(newSize) bytes; a disk that is in use only grows: remove the "
                    + "device, and use 'qed-ublk resize --shrink' on its image")
        }
        guard newSize <= session.image.largestSizeBytes else {
            throw .usage("\(session.path) can have \(session.image.largestSizeBytes) bytes at most, by its tables")
        }
        return newSize
    }

    private func grow(_ image: Image, from oldSize: UInt64, to newSize: UInt64) throws(GrowthError) {
        let found = device.onFirstQueue { queue in
            do throws(RequestError) { return (try await queue.hasTablesBehindEnd(upTo: newSize), String?.none) } catch {
                return (false, "\(error.errno)")
            }
        }
        guard let (hasTables, reason) = found else { throw .busy("queue 0 does not answer") }
        if let reason { throw .cannot("\(session.path): \(reason)") }
        guard !hasTables else {
            throw .cannot(
                "\(session.path) has tables of a larger size that it had before; remove the device, and run 'qed-ublk resize' "
                    + "on it"
            )
        }
        let next: NextChain
        do throws(Errno) { next = try NextChain.of(image, grownTo: newSize) } catch {
            throw .cannot("\(session.path): no memory for its tables: \(error)")
        }
        do throws(ServerError) { try device.note(.grows(toBytes: newSize)) } catch { throw .cannot("\(error)") }
        var files = session.chain
        files[0] = LayerFile(file: files[0].file, layer: next.layers[0])
        do throws(QueueSilence) { try device.whileQuiet { device.replaceChain(next, files) } } catch {
            throw .busy("\(error); nothing was changed")
        }
        do throws(OwnWorkError) {
            try device.onFirstQueue(changing: { queue throws(HeaderChangeError) in try await queue.grow(from: oldSize) })
        } catch {
            switch error {
            case .noAnswer: throw .busy("queue 0 does not answer")
            // The queues keep the new size, behind whose old end nobody asks for anything: tables may have been made there.
            case .header(let error): throw .cannot("\(session.path): \(error); the disk has its old size")
            }
        }
    }
}

/// Why a disk did not grow, in a sentence.
enum GrowthError: Error, CustomStringConvertible {
    case cannot(String)
    case usage(String)
    case busy(String)

    var description: String {
        switch self {
        case .cannot(let sentence), .usage(let sentence), .busy(let sentence): sentence
        }
    }

    var reply: ControlReply {
        switch self {
        case .cannot: .failure(.failed, description)
        case .usage: .failure(.badRequest, description)
        case .busy: .failure(.busy, description)
        }
    }
}
