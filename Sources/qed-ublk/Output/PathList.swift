import Platform

/// Paths in a server's answer, which may have no room for all of them.
struct PathList {
    private let paths: [String]
    private let count: Int

    /// - Parameter name: of the member; "NAME-count" is how many there are.
    init(_ answer: JSONValue, _ name: String) {
        paths = answer[name]?.texts ?? []
        count = answer["\(name)-count"]?.integer(as: Int.self) ?? paths.count
    }

    var isEmpty: Bool { paths.isEmpty }

    var text: String { paths.joined(separator: ", ") + (count > paths.count ? ", and \(count - paths.count) more" : "") }
}
