/// Figures in the text format that Prometheus and what scrapes like it read (version 0.0.4).
package struct PrometheusText {
    package enum Kind: String {
        /// Only grows, until its source begins anew.
        case counter
        case gauge
    }

    private struct Family {
        var name: String
        var kind: Kind
        var help: String
        var samples: [String] = []
    }

    /// In the order in which they were first given.
    private var families: [Family] = []

    package init() {}

    /// Adds a sample to the figures of a name; the first one says of what kind they are, and what they mean.
    /// - Parameter labels: their values may hold anything.
    package mutating func add(
        _ name: String, _ kind: Kind, _ help: String, _ labels: [(name: String, value: String)], _ value: UInt64
    ) {
        let index: Int
        if let known = families.firstIndex(where: { $0.name == name }) {
            index = known
        } else {
            index = families.count
            families.append(Family(name: name, kind: kind, help: help))
        }
        precondition(families[index].kind == kind, "one name for figures of two kinds")
        let list = labels.map { "\($0.name)=\"\(PrometheusText.escaped($0.value))\"" }.joined(separator: ",")
        families[index].samples.append("\(name){\(list)} \(value)")
    }

    private static func escaped(_ text: String) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": escaped += "\\\\"
            case "\"": escaped += "\\\""
            case "\n": escaped += "\\n"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    /// All of it, with the end of its last line.
    package var text: String {
        families.map { family in
            (["# HELP \(family.name) \(family.help)", "# TYPE \(family.name) \(family.kind.rawValue)"] + family.samples)
                .map { $0 + "\n" }.joined()
        }.joined()
    }
}
