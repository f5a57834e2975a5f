/// What the program did against the rules of the model.
struct Breach: Error, Equatable, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}
