import NBDStorage
import QEDEngine
import QEDFormat

/// What a backing file can be.
public enum BackingFormat: String, Sendable, CaseIterable {
    case raw
    case qed
}

/// Why a backing file's name cannot be turned into a path.
public enum BackingNameError: Error, Sendable, Hashable {
    /// QEMU takes the name for a protocol and an address. Names are never interpreted here: an image could make us
    /// connect to anywhere, or open anything.
    case looksLikeProtocol(name: BackingFileName)
    /// The name is not valid UTF-8.
    case notUTF8(name: BackingFileName)
}

extension BackingNameError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .looksLikeProtocol(let name):
            "the backing file name \(name.text) looks like a protocol and an address; only files and nbd:// addresses are "
                + "supported; "
                + "for a file of that name, store it as ./\(name.text)"
        case .notUTF8(let name):
            "the backing file name \(name.text) is not valid UTF-8; rename the file and change the name in the image"
        }
    }
}

extension BackingFileName {
    /// The name for people: bytes that are not UTF-8 are replaced.
    public var text: String { String(decoding: bytes, as: UTF8.self) }

    /// The address that the name is; nil where it is that of a file.
    public var address: NBDAddress? {
        get throws(NBDAddressError) {
            let text = text
            return NBDAddress.isMeant(by: text) ? try NBDAddress(text) : nil
        }
    }

    /// The name that an overlay stores for the file that its maker calls `text`: a colon before any slash would make
    /// QEMU take the name for a protocol, so `./` goes in front.
    public init(storing text: String) throws(QEDFormatError) {
        let name = try BackingFileName(Array(text.utf8))
        self = name.looksLikeProtocol ? try BackingFileName(Array("./".utf8) + name.bytes) : name
    }

    /// The path of the backing file of the image at `imagePath`.
    ///
    /// A relative name starts at the directory of that path as it is given: where the path leads through a symbolic
    /// link to the image, that is the directory of the link. QEMU has the same rule.
    public func path(inImageAt imagePath: String) throws(BackingNameError) -> String {
        guard !looksLikeProtocol else { throw .looksLikeProtocol(name: self) }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .notUTF8(name: self) }
        guard !isAbsolute, let slash = imagePath.lastIndex(of: "/") else { return text }
        return imagePath[...slash] + text
    }
}
