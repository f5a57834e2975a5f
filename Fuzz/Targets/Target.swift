/// A fuzz target: what is done with an input.
enum Target: String, CaseIterable {
    case open, check, repair, write

    func run(_ input: [UInt8]) {
        switch self {
        case .open: OpenTarget.run(input)
        case .check: CheckTarget.run(input)
        case .repair: RepairTarget.run(input)
        case .write: WriteTarget.run(input)
        }
    }
}
