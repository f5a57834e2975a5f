import DeviceServer
import Platform

extension JSONValue {
    /// The value over several lines for people and diffs: indented by four spaces per level, members sorted by name, so
    /// that equal values are equal texts. Without a line break at the end.
    func indented(by indentation: Int = 0) -> String {
        switch self {
        case .array(let values):
            JSONValue.lines(values.map { $0.indented(by: indentation + 4) }, in: ("[", "]"), indentation)
        case .object(let members):
            JSONValue.lines(
                members.sorted { $0.name < $1.name }.map { member in
                    "\(JSONValue.string(member.name)): \(member.value.indented(by: indentation + 4))"
                }, in: ("{", "}"), indentation)
        default: description
        }
    }

    private static func lines(_ lines: [String], in brackets: (String, String), _ indentation: Int) -> String {
        guard !lines.isEmpty else { return brackets.0 + brackets.1 }
        let outer = String(repeating: " ", count: indentation)
        let inner = outer + "    "
        return brackets.0 + "\n" + inner + lines.joined(separator: ",\n" + inner) + "\n" + outer + brackets.1
    }
}
