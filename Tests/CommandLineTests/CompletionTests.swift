import TestSupport
import Testing

/// What bash offers after a word has been begun, with the script that the program writes for it.
@Suite struct CompletionTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        let program = try QedUblkProgram.path()
        try require(["ln", "-s", program, "qed-ublk"], in: directory.path)
        try require([program, "create", "monday.qed", "1M"], in: directory.path)
        for (base, overlay) in [("monday.qed", "tuesday.qed"), ("tuesday.qed", "disk.qed")] {
            try require([program, "create", "-b", base, "-F", "qed", overlay], in: directory.path)
        }
    }

    @Test(arguments: [
        (["qed-ublk", "rollb"], ["rollback"]), (["qed-ublk", "add", "--sup"], ["--supervise"]),
        (["qed-ublk", "info", "mon"], ["monday.qed"]),
        (["qed-ublk", "rollback", "disk.qed", ""], ["monday.qed", "tuesday.qed"]),
        (["qed-ublk", "map", "disk.qed", "--since", "tues"], ["tuesday.qed"]),
    ])
    func bashOffers(_ words: [String], _ expected: [String]) throws {
        let script = """
            source <(qed-ublk --generate-completion-script bash)
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=$((${#COMP_LINE}))
            _qed-ublk qed-ublk "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\\n' "${COMPREPLY[@]}"
            """
        let result = try run(
            ["env", "PATH=\(directory.path):/usr/bin:/bin", "bash", "-c", script, "bash"] + words, in: directory.path)
        let offered = result.output.split(whereSeparator: { $0 == "\n" || $0 == " " }).map(String.init)
        #expect(offered.sorted() == expected.sorted(), "\(result.errors)")
    }

    @Test("a script for each shell", arguments: ["bash", "zsh", "fish"])
    func scripts(_ shell: String) throws {
        let result = try QedUblkProgram.run("--generate-completion-script", shell, in: directory)
        #expect(result.status == 0 && result.output.contains("rollback") && result.errors == "")
    }
}
