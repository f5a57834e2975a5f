/// What is wrong, in a sentence, and what can be done about it: `doctor` says it where it finds it, and whatever fails for that
/// reason says the same.
public struct Diagnosis: Equatable, Sendable, CustomStringConvertible {
    public let sentence: String
    /// nil where nobody knows one.
    public let remedy: String?

    public init(_ sentence: String, remedy: String? = nil) {
        self.sentence = sentence
        self.remedy = remedy
    }

    /// One sentence.
    public var description: String { remedy.map { "\(sentence); \($0)" } ?? sentence }
}
