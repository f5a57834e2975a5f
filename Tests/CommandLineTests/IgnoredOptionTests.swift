import ArgumentParser
import Testing

@testable import qed_ublk

/// An option is honoured or refused: the table of all commands, with the company in which an option could only be ignored.
@Suite struct IgnoredOptionTests {
    struct Row: Sendable, CustomTestStringConvertible {
        var name: String
        /// Honoured in every company.
        var honoured: [String]
        /// Those that are not, with arguments that must be refused.
        var refused: [String: [[String]]]
        var testDescription: String { name }
    }

    private static let showing = ["--output"]
    private static let json = ["--json": [["--json", "--output", "human", "x"]]]
    private static let backing = ["--backing-dir", "--backing-devices", "--base-allow", "--base-timeout"]
    private static let noBacking = [
        "--no-backing": [
            ["--no-backing", "--backing-dir", "/", "x"], ["--no-backing", "--backing-devices", "x"],
            ["--no-backing", "--base-allow", "*", "x"], ["--no-backing", "--base-timeout", "1", "x"],
        ]
    ]

    /// What options of several commands are, in front of the arguments of one.
    private static func common(_ refused: [String: [[String]]], then words: [String] = []) -> [String: [[String]]] {
        refused.mapValues { $0.map { $0 + words } }
    }

    static let rows: [Row] = [
        Row(
            name: "create", honoured: ["--format", "--force", "--quiet", "--output"],
            refused: json.merging([
                "--cluster-size": [["--cluster-size", "4k", "-o", "cluster_size=8k", "x", "1M"]],
                "--table-size": [["--table-size", "2", "-o", "table_size=4", "x", "1M"]],
                "--options": [
                    ["-o", "cluster_size=4k", "-o", "cluster_size=8k", "x", "1M"], ["-o", "backing_fmt=raw", "x", "1M"],
                ],
                "--backing": [["-b", "y", "x"], ["-b", "y", "-F", "raw", "-o", "backing_file=z", "x"]],
                "--base": [
                    ["--base", "y", "x"], ["--base", "nbd://h/", "-b", "y", "-F", "raw", "x"],
                    ["--base", "nbd://h/", "-F", "qed", "x"],
                ],
                "--backing-format": [["-F", "raw", "x", "1M"], ["-b", "y", "-F", "raw", "-o", "backing_fmt=qed", "x"]],
            ]) { $1 }),
        Row(
            name: "info", honoured: ["--backing-chain", "--force-share"] + showing,
            refused: json.merging([
                "--no-backing": [["--no-backing", "x"]], "--backing-dir": [["--backing-dir", "/", "x"]],
                "--backing-devices": [["--backing-devices", "x"]], "--base-allow": [["--base-allow", "*", "x"]],
                "--base-timeout": [["--base-timeout", "1", "x"]],
            ]) { $1 }),
        Row(
            name: "check", honoured: ["--repair", "--format", "--progress", "--quiet"] + showing,
            refused: json.merging([
                "--repair-cross-links": [["--repair-cross-links", "x"], ["--repair-cross-links", "-r", "leaks", "x"]],
                "--force-share": [["-U", "-r", "all", "x"]], "--force": [["--force", "x"]],
            ]) { $1 }),
        Row(
            name: "map", honoured: ["--format", "--start-offset", "--max-length", "--force-share"] + showing + backing,
            refused: json.merging(noBacking) { $1 }.merging(["--since": [["--since", "x", "-f", "raw", "y"]]]) { $1 }),
        Row(
            name: "measure", honoured: ["--output-format"] + showing,
            refused: json.merging([
                "--size": [["--size", "1M", "x"]], "--format": [["--size", "1M", "-f", "raw"]],
                "--force-share": [["--size", "1M", "-U"]], "--no-backing": [["--size", "1M", "--no-backing"]],
                "--backing-dir": [["--size", "1M", "--backing-dir", "/"]],
                "--backing-devices": [["--size", "1M", "--backing-devices"]],
                "--base-allow": [["--size", "1M", "--base-allow", "*"]],
                "--base-timeout": [["--size", "1M", "--base-timeout", "1"]],
                "--cluster-size": [["-O", "raw", "--cluster-size", "4k", "x"]],
                "--table-size": [["-O", "raw", "--table-size", "2", "x"]],
                "--options": [["-O", "raw", "-o", "cluster_size=4k", "x"], ["-o", "backing_file=y", "x"]],
            ]) { $1 }),
        Row(
            name: "compare",
            honoured: ["--format", "--second-format", "--strict", "--force-share", "--progress", "--quiet"] + showing + backing,
            refused: common(json.merging(noBacking) { $1 }, then: ["y"])),
        Row(
            name: "convert",
            honoured: ["--format", "--output-format", "--parallel", "--progress", "--quiet"] + showing + backing,
            refused: common(json.merging(noBacking) { $1 }, then: ["y"]).merging([
                "--no-create": [["-n", "-f", "raw", "-O", "qed", "-", "y"], ["-n", "x", "-"]],
                "--force": [["-n", "--force", "x", "y"], ["--force", "x", "-"]],
                "--verify": [["--verify", "-f", "raw", "-O", "qed", "-", "y"], ["--verify", "x", "-"]],
                "--force-share": [["-U", "-f", "raw", "-O", "qed", "-", "y"]],
                "--cluster-size": [["--cluster-size", "4k", "x", "y"], ["-n", "-O", "qed", "--cluster-size", "4k", "x", "y"]],
                "--table-size": [["--table-size", "2", "x", "y"]],
                "--options": [["-o", "cluster_size=4k", "x", "y"], ["-O", "qed", "-o", "backing_file=z", "x", "y"]],
            ]) { $1 }),
        Row(
            name: "io", honoured: ["--format", "--quiet"] + showing + backing,
            refused: common(json.merging(noBacking) { $1 }, then: ["length"]).merging([
                "--command": [["x", "-c", "length", "map"]], "--force-share": [["-U", "x", "write 0 4k"]],
            ]) { $1 }),
        // --shrink allows, and asks for nothing.
        Row(
            name: "resize", honoured: ["--shrink", "--format", "--quiet"] + showing + backing,
            refused: common(json.merging(noBacking) { $1 }, then: ["1M"])),
        Row(
            name: "commit", honoured: ["--keep-overlay", "--progress", "--quiet"] + showing + backing,
            refused: json.merging(noBacking) { $1 }.merging([
                "--keep": [["--keep", "1", "x"], ["--keep", "1001", "0"]], "--into": [["--into", "y", "x"]],
                "--pause": [["--pause", "x"], ["--pause", "--keep", "1", "0"]],
                "--resume": [["--resume", "x"], ["--resume", "--pause", "0"]],
                "--cancel": [["--cancel", "x"], ["--cancel", "-p", "0"]],
            ]) { $1 }),
        Row(
            // With --unsafe no file is opened, so whatever keeps files from being opened is honoured.
            name: "rebase", honoured: ["--backing", "--unsafe", "--progress", "--quiet"] + showing + backing,
            refused: common(json.merging(noBacking) { $1 }, then: ["-b", ""]).merging([
                "--backing-format": [["-b", "", "-F", "raw", "x"]]
            ]) { $1 }),
        Row(
            name: "flatten", honoured: ["--progress", "--quiet"] + showing,
            refused: json.merging(noBacking) { $1 }.merging([
                "--backing-dir": [["--backing-dir", "/", "0"]], "--backing-devices": [["--backing-devices", "0"]],
                "--base-allow": [["--base-allow", "*", "0"]], "--base-timeout": [["--base-timeout", "1", "0"]],
                "--pause": [["--pause", "x"], ["--pause", "--cancel", "0"]],
                "--resume": [["--resume", "x"], ["--resume", "--pause", "0"]],
                "--cancel": [["--cancel", "x"], ["--cancel", "-p", "0"]],
            ]) { $1 }),
        Row(
            name: "warm", honoured: ["--progress", "--quiet"] + showing,
            refused: json.merging([
                "--offset": [["--offset", "1M", "--ranges", "y", "0"]], "--length": [["--length", "1M", "--ranges", "y", "0"]],
                "--ranges": [["--ranges", "y", "--cancel", "0"]], "--pause": [["--pause", "--cancel", "0"]],
                "--resume": [["--resume", "--offset", "0", "0"]], "--cancel": [["--cancel", "-p", "0"]],
            ]) { $1 }),
        Row(
            name: "cache create", honoured: ["--image", "--base-timeout"],
            refused: [
                "--base": [["x", "--base", "y"], ["x", "--base", "nbd://"]],
                "--limit": [["x", "--base", "nbd://a/", "--limit", "15M"]],
            ]),
        Row(name: "cache list", honoured: showing, refused: ["--json": [["--json", "--output", "human"]]]),
        Row(name: "cache warm", honoured: ["--ranges", "--progress", "--quiet"] + showing, refused: json),
        Row(name: "cache verify", honoured: ["--progress", "--quiet"] + showing, refused: json),
        Row(name: "cache drop", honoured: [], refused: [:]),
        Row(name: "compact", honoured: ["--progress", "--quiet"] + showing, refused: json),
        Row(
            name: "add",
            honoured: [
                // Of a device that is there already: `AddToWaitingDeviceTests`.
                "--queues", "--depth", "--block-size", "--id", "--name", "--symlink", "--partscan", "--read-only", "--zero-copy",
                "--cache-size", "--foreground",
            ] + backing,
            refused: noBacking.merging([
                "--untrusted": [
                    ["--untrusted", "--partscan", "x"], ["--untrusted", "--backing-devices", "x"],
                    ["--untrusted", "--base-allow", "*", "x"], ["--untrusted", "--base-timeout", "1", "x"],
                ],
                "--snapshot": [
                    ["--snapshot", "-r", "x"], ["--snapshot", "--no-backing", "x"], ["--snapshot", "--untrusted", "x"],
                ],
                "--copy-on-read": [["--copy-on-read", "--snapshot", "x"]],
                "--keep-limit": [
                    ["--keep-limit", "1G", "x"], ["--keep-limit", "1G", "-r", "x"],
                    ["--keep-limit", "1G", "--copy-on-read", "x"],
                    ["--keep-limit", "1G", "--copy-on-read", "-r", "--untrusted", "x"],
                    ["--keep-limit", "15M", "--copy-on-read", "-r", "x"],
                ],
                "--record": [["--record", "y", "--untrusted", "x"]],
                "--prefetch": [["--prefetch", "y", "x"], ["--prefetch", "y", "--copy-on-read", "--untrusted", "x"]],
                "--force": [["--force", "-r", "x"]], "--supervise": [["--supervise", "-f", "x"]],
                "--no-recovery": [["--supervise", "--no-recovery", "x"]],
            ]) { $1 }),
        Row(
            name: "list", honoured: ["--verbose"] + showing,
            refused: [
                "--json": [["--json", "--output", "human"]],
                "--columns": [["--columns", "device", "-v"], ["-O", "size", "--json"]],
                "--export": [["--export"], ["--export", "0", "1"], ["--export", "-n", "0"], ["--export", "--json", "0"]],
                "--noheadings": [["-n", "--json"], ["--no-headings", "--output", "json"]],
            ]),
        Row(name: "status", honoured: showing, refused: json),
        Row(name: "doctor", honoured: showing, refused: ["--json": [["--json", "--output", "human"]]]),
        Row(name: "stats", honoured: ["--quiesce"] + showing, refused: json),
        Row(
            name: "snapshot", honoured: ["--fsfreeze", "--overlay"] + showing,
            refused: ["--json": [["--json", "--output", "human", "0", "x.qed"]]]),
        Row(
            name: "top", honoured: ["--batch"], refused: ["--iterations": [["-b", "-n", "0"]], "--delay": [["-b", "-d", "0"]]]),
        Row(name: "metrics", honoured: ["--file"], refused: [:]),
        Row(
            name: "fork", honoured: ["--fsfreeze"] + showing,
            refused: ["--json": [["--json", "--output", "human", "0", "x.qed", "y.qed"]]]),
        Row(
            name: "rollback", honoured: ["--force"] + showing,
            refused: ["--json": [["--json", "--output", "human", "0", "x.qed"]]]),
        Row(name: "snapshots", honoured: showing, refused: ["--json": [["--json", "--output", "human", "0"]]]),
        Row(
            name: "del", honoured: ["--force"],
            refused: [
                "--lazy": [["--lazy", "--force", "0"]], "--all": [["--all", "0"]],
                "--timeout": [["--timeout", "5", "0"], ["--timeout", "5", "--all"]],
            ]),
        Row(name: "recover", honoured: ["--supervise"], refused: ["--all": [["--all", "0"]]]),
        Row(
            name: "bench",
            honoured: ["--count", "--depth", "--buffer-size", "--write", "--cache", "--backing-cache", "--random"] + showing
                + backing,
            refused: json.merging(noBacking) { $1 }.merging([
                "--step-size": [["--random", "-S", "64k", "x"]], "--offset": [["--random", "-o", "64k", "x"]],
                "--flush-interval": [["--flush-interval", "3", "x"]],
                "--no-drain": [["--no-drain", "x"], ["-w", "--no-drain", "x"]], "--pattern": [["--pattern", "7", "x"]],
                "--force-share": [["-U", "-w", "x"]],
            ]) { $1 }),
    ]

    private static func command(_ name: String) throws -> any ParsableCommand.Type {
        try #require(QedUblk.allCommands.first { $0.name == name }?.type)
    }

    @Test("every option of every command is in this table, those that come later too")
    func isComplete() throws {
        let names = QedUblk.allCommands.map(\.name)
        #expect(Self.rows.map(\.name).sorted() == names.sorted())
        for row in Self.rows {
            let options = OptionNames.of(try Self.command(row.name))
            #expect(options == Set(row.honoured).union(row.refused.keys), "\(row.name)")
        }
    }

    @Test("what could only be ignored is refused", arguments: rows)
    func refused(row: Row) throws {
        let command = try Self.command(row.name)
        for (option, cases) in row.refused {
            for words in cases {
                var isRefused = false
                do { _ = try command.parseAsRoot(words) } catch { isRefused = QedUblk.exitCode(for: error) == .validationFailure }
                #expect(isRefused, "\(option): \(words)")
            }
        }
    }
}
