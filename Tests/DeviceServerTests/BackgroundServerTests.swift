import BlockStorage
import Platform
import Testing

@testable import DeviceServer

/// Between `add`, the server that it starts, and whoever starts the next one.
@Suite struct BackgroundServerTests {
    @Test func programOfAnUpgrade() throws {
        #expect(Program.path(ofRunning: "/bin/sh") == "/bin/sh")
        #expect(Program.path(ofRunning: "/bin/sh (deleted)") == "/bin/sh")
        for gone in ["/nonexistent/program", "/nonexistent/program (deleted)"] {
            #expect(Program.path(ofRunning: gone) == "/proc/self/exe")
        }
    }

    @Test(
        arguments: [
            .ready("/dev/ublkb0"), .failed(status: 3, "a.qed: in use by qemu-nbd (process 7)"), .failed(status: 64, "x"),
        ] as [BackgroundServer.Report])
    func reportIsReadAsItWasWritten(report: BackgroundServer.Report) throws {
        #expect(report.line.last == "\n")
        #expect(BackgroundServer.Report(String(report.line.dropLast())) == report)
    }

    /// A name in it can have line breaks, and one of them would end it.
    @Test func reportIsOneLine() {
        #expect(
            BackgroundServer.Report.failed(status: 4, "a\nready /dev/ublkb7: no such file").line
                == "failed 4 a\\u{a}ready /dev/ublkb7: no such file\n")
    }

    @Test(arguments: ["", "ready", "ready a b", "failed", "failed 3", "failed x y", "Segmentation fault", "failed 4294967296 x"])
    func whatIsNoReport(line: String) { #expect(BackgroundServer.Report(line) == nil) }
}

/// What is recorded of the files that an image may name.
@Suite struct BackingChoiceTests {
    @Test(
        arguments: [
            BackingChoice(), BackingChoice(refusesBackingFiles: true), BackingChoice(allowsBlockDevices: true),
            BackingChoice(allowsBlockDevices: true, directories: ["/", "/a b", "--no-backing"]),
        ])
    func isReadAsItWasWritten(choice: BackingChoice) throws {
        #expect(try BackingChoice(arguments: choice.arguments) == choice)
    }

    /// The record is a file, and what it does not say must not open more than was allowed.
    @Test(
        arguments: [
            ["--backing-dir"], ["--backing-dir", ""], ["--no-backin"], ["x"], ["--no-backing", "--backing-devices"],
            ["--no-backing", "--backing-dir", "/"],
        ])
    func whatMakesNoSenseIsRefused(words: [String]) {
        #expect(throws: BackingArgumentError(words: words)) { try BackingChoice(arguments: words) }
    }

    @Test func policyHoldsItsDirectories() throws {
        let policy = try BackingChoice(allowsBlockDevices: true, directories: ["/", "/usr"]).policy()
        #expect(policy.allowsBlockDevices && !policy.refusesBackingFiles)
        #expect(policy.directories?.map(\.path) == ["/", "/usr"])
        #expect(try BackingChoice().policy().directories == nil)
        #expect(throws: ImageFileError.notFound(path: "/nonexistent")) {
            _ = try BackingChoice(directories: ["/nonexistent"]).policy()
        }
    }
}
