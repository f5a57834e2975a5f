import Foundation
import TestSupport
import Testing

/// Where a sandbox, or a sysctl, forbids io_uring: a command does without it, or says so in one sentence.
@Suite struct WithoutRingTests {
    /// Runs what follows with an io_uring_setup(2) that is not permitted.
    private static let forbidden = [
        "perl", "-e",
        """
        my $filter = pack("SCCL" x 4, 0x20, 0, 0, 0, 0x15, 0, 1, 425, 0x06, 0, 0, 0x00050001, 0x06, 0, 0, 0x7fff0000);
        my $program = pack("S x6 P", 4, $filter);
        my $prctl = `uname -m` =~ /x86_64/ ? 157 : 167;
        syscall($prctl, 38, 1, 0, 0, 0) == 0 && syscall($prctl, 22, 2, $program, 0, 0) == 0 or die "no seccomp";
        exec @ARGV;
        """,
    ]

    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["other.qed", "file.qed"] {
            try require(["qemu-img", "create", "-q", "-f", "qed", name, "10M"], in: directory.path)
        }
        try require(["qemu-img", "rebase", "-u", "-b", "other.qed", "-F", "qed", "file.qed"], in: directory.path)
    }

    @Test("a command", arguments: CommandContractTests.openers)
    func says(command: CommandContractTests.Command) throws {
        let before = try directory.contents()
        let words = command.arguments.map { $0 == "FILE" ? "file.qed" : $0 == "OTHER" ? "other.qed" : $0 == "NEW" ? "new" : $0 }
        let result = try run(Self.forbidden + [try QedUblkProgram.path(), command.name] + words, in: directory.path)
        if result.status == 0 {
            #expect(["info", "create", "map", "measure"].contains(command.name))
            return
        }
        #expect(result.output == "")
        #expect(result.errors.hasPrefix("qed-ublk: ") && result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        #expect(result.errors.contains("io_uring"), "\(result.errors)")
        #expect(try directory.contents() == before)
    }
}
