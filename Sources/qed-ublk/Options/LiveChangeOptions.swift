import ArgumentParser
import DeviceServer

/// What is under way on a device and copies for long can be told.
struct LiveChangeOptions: ParsableArguments {
    @Flag(help: "Of a device: have what is under way wait.")
    var pause = false

    @Flag(help: "Have it go on.")
    var resume = false

    @Flag(help: "End it; what was there before stays.")
    var cancel = false

    /// - Parameter others: options are given that none of these goes with, and neither does another of them.
    func refuse(beside others: Bool) throws {
        guard [pause, resume, cancel, isGiven && others].count(where: { $0 }) <= 1 else {
            throw ValidationError("--pause, --resume and --cancel go with nothing else")
        }
    }

    var isGiven: Bool { change != nil }

    var change: ControlRequest.CommitChange? { pause ? .pause : resume ? .resume : cancel ? .cancel : nil }
}
