import CSupport
import SystemPackage

@testable import Ublk

/// A driver behind the control channel that answers as the test says, and remembers what it was asked.
final class ScriptedDriver: ControlChannel {
    private(set) var commands: [ControlCommand] = []
    private let answer: (ControlCommand, Int) -> ControlOutcome

    /// - Parameter answer: gets the command and how many came before it.
    init(_ answer: @escaping (ControlCommand, Int) -> ControlOutcome) { self.answer = answer }

    /// The same results in turn, the last one for ever.
    convenience init(results: [Int32]) {
        self.init { _, index in .completed(results[min(index, results.count - 1)]) }
    }

    func execute(_ command: ControlCommand, timeout: Duration) -> ControlOutcome {
        commands.append(command)
        return answer(command, commands.count - 1)
    }

    var codes: [UblkCommand] { commands.map(\.code) }
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
