import BlockStorage
import CSupport
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// What an image and the files behind it say about themselves, read without locks.
public struct ChainDescription: Sendable {
    public enum Member: Sendable {
        case qed(ImageDescription)
        case raw(path: String, sizeBytes: UInt64, allocatedBytes: UInt64?)
    }

    /// The image first.
    public let members: [Member]

    /// - Parameter policy: for the files that images name. With a base elsewhere that is left out what is known of it is told.
    /// - Throws: where a file of the chain is missing, not allowed or not what its overlay says, or files form a loop.
    public init(reading path: String, policy: BackingPolicy = .plainFiles) throws(ImageToolError) {
        let chain: [LayerFile]
        do throws(ChainError) {
            chain = try ImageChain.open(
                path: path, isReadOnly: true, caching: .buffered, locking: .none, policy: policy)
        } catch {
            throw .chain(error)
        }
        var members: [Member] = []
        for link in chain {
            switch link.layer {
            case .qed:
                do throws(ImageReadError) { members.append(.qed(try ImageDescription(of: link.file))) } catch {
                    throw .read(error)
                }
            case .raw(let sizeBytes):
                var status = cs_file_status()
                // Of a base elsewhere nobody here knows what it takes.
                let isKnown = (link.source as? ImageFile).map { cs_status_of($0.descriptor, &status) == 0 } ?? false
                members.append(
                    .raw(
                        path: link.source.path, sizeBytes: sizeBytes,
                        allocatedBytes: isKnown ? status.allocated_bytes : nil))
            }
        }
        if policy.baseOpening == .leftOut, let base = policy.knownBase, case .qed(let image) = members.last,
            image.backing?.name.text == base.address
        {
            members.append(.raw(path: base.address, sizeBytes: base.sizeBytes, allocatedBytes: nil))
        }
        self.members = members
    }
}
