import BlockStorage
import SystemPackage

/// What goes wrong with which operations.
public struct Fault: Sendable, CustomStringConvertible {
    public enum Effect: Sendable, Equatable {
        case error(Errno)
        /// Less is transferred than asked for, but a sector at least; operations that move no data succeed.
        case short

        /// The operation has done nothing, and is to be asked for again.
        var doesNothing: Bool { self == .error(.interrupted) || self == .error(.resourceTemporarilyUnavailable) }
    }

    public var effect: Effect
    /// The first operation that fails, counted from 0.
    public var operation: Int
    /// Every later one fails as well.
    public var isPersistent: Bool
    /// Only syncs fail: the first from `operation` on.
    var isOfSyncs = false

    public init(_ effect: Effect, operation: Int, isPersistent: Bool) {
        self.effect = effect
        self.operation = operation
        self.isPersistent = isPersistent
    }

    func strikes(_ number: Int, isSync: Bool) -> Bool {
        if isOfSyncs { return isSync && number >= operation }
        return number == operation || (isPersistent && number > operation)
    }

    public var description: String {
        let name =
            switch effect {
            case .error(let errno): "\(errno)"
            case .short: "a short transfer"
            }
        return "\(name) at operation \(operation)\(isPersistent ? " and ever after" : "")"
    }
}
