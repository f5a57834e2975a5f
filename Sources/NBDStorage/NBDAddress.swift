/// Where an NBD server has an export: the URI that libnbd, nbdkit and QEMU know, as far as it leads to an export and to nothing
/// else.
///
/// `nbd://HOST[:PORT]/[EXPORT]`, `nbds://…` (TLS), `nbd+unix:///[EXPORT]?socket=PATH`, `nbds+unix:///…`. Neither a user nor a
/// file of keys can be named: an address is stored in images and shown in logs.
public struct NBDAddress: Hashable, Sendable {
    public let text: String

    /// Whether it is only connected to with TLS.
    var isEncrypted: Bool { text.hasPrefix("nbds") }

    /// Whether the text begins as such an address does.
    public static func isMeant(by text: String) -> Bool {
        guard let colon = text.firstIndex(of: ":"), text[colon...].hasPrefix("://") else { return false }
        return schemes.contains(text[..<colon].lowercased())
    }

    public init(_ text: String) throws(NBDAddressError) {
        func refuse(_ reason: String) -> NBDAddressError { NBDAddressError(text: text, reason: reason) }
        guard let colon = text.firstIndex(of: ":"), NBDAddress.schemes.contains(String(text[..<colon])),
            text[colon...].hasPrefix("://")
        else { throw refuse("it does not begin with nbd://, nbds://, nbd+unix:// or nbds+unix://") }
        guard text.utf8.count <= NBDAddress.longestBytes else { throw refuse("it is longer than QEMU takes") }
        guard text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }), !text.contains("#") else {
            throw refuse("it has characters that must be written as %xx")
        }
        let rest = text[text.index(colon, offsetBy: 3)...]
        guard let slash = rest.firstIndex(of: "/") else { throw refuse("there is no / before the export's name") }
        let host = rest[..<slash]
        let parts = rest[slash...].split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        if text[..<colon].hasSuffix("+unix") {
            guard host.isEmpty else { throw refuse("a socket is on this machine: write nbd+unix:///EXPORT?socket=PATH") }
            guard parts.count == 2, parts[1].hasPrefix("socket=/"), !parts[1].contains("&") else {
                throw refuse("it names no socket by its whole path, and nothing else: write nbd+unix:///EXPORT?socket=/PATH")
            }
        } else {
            guard !host.isEmpty else { throw refuse("it names no host") }
            guard !host.contains("@") else { throw refuse("it names a user, which an image would show to everybody") }
            guard parts.count == 1 else { throw refuse("what follows the ? could name files of this machine") }
        }
        self.text = text
    }

    /// Of a backing file's name in an image that QEMU opens.
    private static let longestBytes = 1023
    private static let schemes: Set<String> = ["nbd", "nbds", "nbd+unix", "nbds+unix"]
}

public struct NBDAddressError: Error, Hashable, Sendable, CustomStringConvertible {
    public let text: String
    public let reason: String

    public var description: String { "\(text): no address of an NBD export: \(reason)" }
}
