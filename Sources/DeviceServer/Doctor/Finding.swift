import Platform

/// Something about the machine that devices depend on, in a sentence, and what to do about it.
public struct Finding: Equatable, Sendable {
    /// What it means for devices, the least first.
    public enum Verdict: String, Comparable, Sendable, CaseIterable {
        case good
        /// Something that some kernels or machines can do, and this one cannot.
        case note
        /// It works, and somebody should look at it.
        case warning
        /// No device can be served.
        case trouble

        public static func < (one: Verdict, other: Verdict) -> Bool { one.rank < other.rank }

        private var rank: Int {
            switch self {
            case .good: 0
            case .note: 1
            case .warning: 2
            case .trouble: 3
            }
        }
    }

    /// What was looked at: kernel, driver, io_uring, memory, directory, names, devices; mounts, swap and images that a device
    /// without a server stops.
    public let subject: String
    public let verdict: Verdict
    public let sentence: String
    public let remedy: String?

    init(_ subject: String, _ verdict: Verdict, _ diagnosis: Diagnosis) {
        self.subject = subject
        self.verdict = verdict
        sentence = diagnosis.sentence
        remedy = diagnosis.remedy
    }

    init(_ subject: String, _ verdict: Verdict, _ sentence: String) {
        self.init(subject, verdict, Diagnosis(sentence))
    }

    package var json: JSONValue {
        .object([
            .init("subject", .string(subject)), .init("verdict", .string(verdict.rawValue)),
            .init("sentence", .string(sentence)), .init("remedy", remedy.map { .string($0) } ?? .null),
        ])
    }
}
