import BlockStorage
import CSupport
import QEDEngine
import QEDFormat
import SystemPackage

/// What an image and the files behind it say about themselves, read without locks.
public struct ChainDescription: Sendable {
    public enum Member: Sendable {
        case qed(ImageDescription)
        case raw(path: String, sizeBytes: UInt64, allocatedBytes: UInt64)
    }

    /// The image first.
    public let members: [Member]

    /// - Throws: where a file of the chain is missing or not what its overlay says, or files form a loop.
    public init(reading path: String) throws(ImageToolError) {
        var members: [Member] = []
        var seen: Set<ImageFile.Identity> = []
        var nextPath = path
        var isRaw = false
        while true {
            guard members.count < ImageChain.longestChain else { throw .chain(.tooLong(path: path)) }
            if let identity = ImageFile.Identity(ofFileAt: nextPath), !seen.insert(identity).inserted {
                throw .chain(.loop(path: path, repeated: nextPath))
            }
            if isRaw {
                members.append(try ChainDescription.raw(nextPath))
                break
            }
            let description: ImageDescription
            do throws(ImageReadError) { description = try ImageDescription(reading: nextPath) } catch {
                throw .read(error)
            }
            members.append(.qed(description))
            guard let backing = description.backing else { break }
            switch backing.state {
            case .present(let path), .missing(let path), .inaccessible(let path, _): nextPath = path
            case .unusableName(let error): throw .chain(.backingName(path: nextPath, error))
            }
            isRaw = backing.declaredFormat == .raw
        }
        self.members = members
    }

    private static func raw(_ path: String) throws(ImageToolError) -> Member {
        let file = try ImageFile.openedForTool(path, .readOnly, sharing: true, allowBlockDevice: true)
        var identity = cs_file_identity()
        _ = cs_identify(file.descriptor, &identity)
        return .raw(path: path, sizeBytes: file.sizeBytes, allocatedBytes: identity.allocated_bytes)
    }
}
