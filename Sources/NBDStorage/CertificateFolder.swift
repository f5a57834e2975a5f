import Glibc

/// Where the certificates for TLS are: that of the authority by which a server is known, and this machine's own, where a server
/// asks for one.
enum CertificateFolder {
    static let authority = "ca-cert.pem"

    /// Where libnbd looks by itself: for root the machine's, for others their own.
    static func candidates(isRoot: Bool, home: String?) -> [String] {
        if isRoot { return ["/etc/pki/libnbd"] }
        return home.map { ["\($0)/.pki/libnbd", "\($0)/.config/pki/libnbd"] } ?? []
    }

    /// Without an authority libnbd 1.14 would take anybody for the server.
    /// - Throws: where there is none.
    static func find() throws(NBDFailure) -> String {
        try find(candidates(isRoot: geteuid() == 0, home: getenv("HOME").map { String(cString: $0) }))
    }

    static func find(_ candidates: [String]) throws(NBDFailure) -> String {
        if let folder = candidates.first(where: { access("\($0)/\(authority)", R_OK) == 0 }) { return folder }
        let missing = candidates.map { "\($0)/\(authority)" }.joined(separator: " or ")
        throw NBDFailure("TLS needs the certificate of the authority that its server is known by, in \(missing)")
    }
}
