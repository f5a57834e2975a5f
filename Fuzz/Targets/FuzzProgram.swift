import FuzzMemory
import Glibc
import QEDEngine

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
        if arguments.count == 4, arguments[1] == "image" {
            ImageDump.write(ImageDump.read(arguments[2]), to: arguments[3])
            return
        }
        if arguments.count == 2, arguments[1] == "canaries" {
            for (fault, target) in Canary.all { print(fault.rawValue, target.rawValue) }
            return
        }
        guard let name = getenv("QED_FUZZ_TARGET"), let target = Target(rawValue: String(cString: name)) else {
            complain(
                """
                usage: QED_FUZZ_TARGET=open|check|repair|write qed-ublk-fuzz ARGUMENT...    libFuzzer's arguments
                       qed-ublk-fuzz seeds FOLDER         writes what fuzzing starts from
                       qed-ublk-fuzz image INPUT PATH     writes the files that an input describes
                       qed-ublk-fuzz canaries             lists planted faults and the targets that must find them
                """)
            exit(64)
        }
        FuzzProgram.target = target
        Canary.plant()
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
