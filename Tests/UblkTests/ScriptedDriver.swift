import CSupport
import SystemPackage

@testable import Ublk

/// A driver behind the control channel that answers as the test says, and remembers what it was asked.
final class ScriptedDriver: ControlChannel {
    private(set) var requests: [ControlRequest] = []
    private let answer: (ControlRequest, Int) -> ControlOutcome

    /// - Parameter answer: gets the request and how many came before it.
    init(_ answer: @escaping (ControlRequest, Int) -> ControlOutcome) { self.answer = answer }

    /// The same results in turn, the last one for ever.
    convenience init(results: [Int32]) {
        self.init { _, index in .completed(results[min(index, results.count - 1)]) }
    }

    func execute(_ request: ControlRequest, timeout: Duration) -> ControlOutcome {
        requests.append(request)
        return answer(request, requests.count - 1)
    }

    var commands: [UblkCommand] { requests.map(\.command) }
}

/// The error that the body throws.
func controlError(_ body: () throws(UblkControlError) -> Void) -> UblkControlError? {
    do {
        try body()
        return nil
    } catch {
        return error
    }
}
