import FuzzMemory
import Glibc

/// All targets in one program: QED_FUZZ_TARGET says which is run, the arguments are libFuzzer's.
@main
struct FuzzProgram {
    // SAFETY: set once, before the first input.
    nonisolated(unsafe) private static var target = Target.open

    static func main() {
        let arguments = CommandLine.arguments
        if arguments.count == 3, arguments[1] == "seeds" {
            Seeds.write(to: arguments[2])
            return
        }
        guard let name = getenv("QED_FUZZ_TARGET"), let target = Target(rawValue: String(cString: name)) else {
            complain("usage: QED_FUZZ_TARGET=open|check|repair|write qed-ublk-fuzz ARGUMENT..., or qed-ublk-fuzz seeds FOLDER")
            exit(64)
        }
        FuzzProgram.target = target
        fuzz_memory_install()
        var count = CommandLine.argc
        var values: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
        exit(
            LLVMFuzzerRunDriver(&count, &values) { bytes, count in
                FuzzProgram.target.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
                return 0
            })
    }
}
