import Synchronization

/// What the header on disk says of NEED_CHECK, and of the mapping log, whose bit always goes with it; and who is about to
/// change that.
///
/// One value under the image's lock, so that nobody can publish an entry while a trim takes the bits away: after a kill the
/// log of an image without them counts for nothing. The extension of the file belongs to it, because the first one sets the
/// bits, and because only one of extension and trim runs at a time.
enum NeedCheckState: UInt8, AtomicRepresentable {
    /// The bits are not there, durably.
    case clear
    /// They may be there: an earlier process has left them, or a write of them has failed.
    case unknown
    /// The file is being extended, and they are set with its new length.
    case beingSet
    /// They are there, durably.
    case set
    /// They are there, durably, and the file is being extended.
    case setAndExtending
    /// A trim is on its way, and takes them away.
    case beingCleared

    /// Whether entries of tables may be changed.
    var allowsChanges: Bool { self == .set || self == .setAndExtending }

    /// An extension or a trim is under way: nobody else may begin one, or write the header.
    var isBusy: Bool { self == .beingSet || self == .setAndExtending || self == .beingCleared }

    /// Whether a trim has something to do, and may begin.
    var canBeCleared: Bool { self == .set || self == .unknown }

    mutating func extensionBegins() {
        precondition(!isBusy, "an extension beside another or a trim")
        self = self == .set ? .setAndExtending : .beingSet
    }

    mutating func extensionEnded(succeeded: Bool) {
        precondition(self == .beingSet || self == .setAndExtending, "no extension was under way")
        self = succeeded || self == .setAndExtending ? .set : .unknown
    }

    mutating func trimBegins() {
        precondition(canBeCleared, "a trim beside an extension, or of an image that is clean")
        self = .beingCleared
    }

    mutating func trimEnded(succeeded: Bool) {
        precondition(self == .beingCleared, "no trim was under way")
        self = succeeded ? .clear : .unknown
    }
}
