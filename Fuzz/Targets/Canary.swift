import Glibc
import QEDEngine

/// Faults planted in the engine and the tools that the targets must find: the proof that they would. Only in a build with
/// QED_SABOTAGE; see `Sabotage`.
enum Canary {
    /// Which target must find which fault.
    static let all: [(fault: Sabotage, target: Target)] = [
        (.trustTableEntries, .open), (.trustImageSize, .open), (.signedEntry, .check), (.skipTable, .repair),
        (.reclaimInCircles, .repair), (.overlookCrossLinks, .write),
    ]

    /// Plants the fault that QED_FUZZ_CANARY names, if it names one.
    static func plant() {
        guard let name = getenv("QED_FUZZ_CANARY") else { return }
        #if QED_SABOTAGE
        guard let fault = Sabotage(rawValue: String(cString: name)) else {
            complain("no such fault: \(String(cString: name))")
            exit(64)
        }
        Sabotage.active = fault
        #else
        complain("this program was built without QED_SABOTAGE=1 in the environment")
        exit(64)
        #endif
    }
}
