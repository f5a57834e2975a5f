/// What went wrong with some of several devices, of which one does not keep the others from what is done with all: each is
/// told, and the last gives the exit status.
struct FailureList {
    private var last: (any Error)?

    mutating func note(_ error: any Error) {
        if let last { printError("\(last)") }
        last = error
    }

    /// - Throws: the last, which is told by whoever catches it.
    func end() throws {
        if let last { throw last }
    }
}
