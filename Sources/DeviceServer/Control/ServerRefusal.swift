/// A server has answered that it does not, or cannot, do what it was asked for.
public struct ServerRefusal: Error, Equatable, CustomStringConvertible {
    package let code: ControlReply.FailureCode
    /// For the user.
    public let description: String
}
