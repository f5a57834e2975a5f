import BlockStorage
import Foundation
import Platform
import QEDChain
import TestSupport
import Testing

@testable import DeviceServer
@testable import QEDEngine

/// --no-backing, --backing-dir and --backing-devices, in every command that opens backing files.
@Suite struct BackingPolicyTests {
    let scene: BackingScene

    init() throws { scene = try BackingScene() }

    private static let openers: [[String]] = [
        ["io", "images/image.qed", "read 0 4k"], ["io", "images/image.qed", "write 0 4k"],
        ["info", "--backing-chain", "images/image.qed"], ["map", "images/image.qed"], ["measure", "images/image.qed"],
        ["compare", "images/image.qed", "images/base.qed"], ["compare", "images/base.qed", "images/image.qed"],
        ["convert", "images/image.qed", "copy"], ["convert", "-n", "-O", "qed", "images/base.qed", "images/image.qed"],
        ["bench", "-c", "1", "images/image.qed"], ["resize", "images/image.qed", "+1G"],
        ["flatten", "images/image.qed"],
        ["rebase", "-b", "base", "-F", "raw", "images/image.qed"], ["commit", "images/image.qed"],
    ]

    /// By every command, or by those that read and write.
    private func expectRefused(
        _ options: [String], _ reason: String, byAll: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let before = try scene.directory.contents()
        for command in byAll ? Self.openers[...] : Self.openers.prefix(2) {
            let result = try scene.run([command[0]] + options + command.dropFirst())
            expectRefusal(result, 2, reason, sourceLocation: sourceLocation)
        }
        #expect(try scene.directory.contents() == before, sourceLocation: sourceLocation)
    }

    // MARK: --no-backing

    @Test(
        "no backing file is opened, and none is taken for zeros", arguments: ["base", "none", "nbd:x", "/dev/watchdog"])
    func noBacking(name: String) throws {
        try scene.makeImage(BackingName(68, name, .refused(2, "")))
        // Left by a crash: not even that is repaired.
        let editor = try ImageEditor(scene.image)
        try editor.setFeatures(7)
        try expectRefused(
            ["--no-backing"], "images/image.qed: needs its backing file \(name), and --no-backing allows none",
            byAll: true)
        // What opens no backing file is not concerned.
        expectSuccess(try scene.run(["rebase", "--no-backing", "-u", "-b", "", "images/image.qed"]))
        expectSuccess(try scene.run(["io", "--no-backing", "images/image.qed", "read -P 0 0 64k", "write 0 4k"]))
    }

    @Test func optionsThatExcludeEachOther() throws {
        for options in [["--backing-dir", "images"], ["--backing-devices"]] {
            expectRefusal(
                try scene.run(["map", "--no-backing"] + options + ["images/base.qed"]), 64, "--no-backing goes with")
        }
        expectRefusal(try scene.run(["info", "--no-backing", "images/base.qed"]), 64, "without --backing-chain")
        expectRefusal(try scene.run(["map", "--backing-dir", "", "images/base.qed"]), 64, "a file name is needed")
    }

    // MARK: --backing-dir

    /// Names, and whether the file is in `images`: the byte it is full of, or why not.
    static let names: [(String, UInt8?)] = [
        ("base", 1), ("./base", 1), ("sub/inner", 4), ("in", 4), ("sub/../base", 1), ("./sub/.././base", 1),
        (".//base", 1),
        ("../images/base", 1), ("../images-evil/../images/base", 1), ("up/images/sub/inner", 4), ("DIR/images/base", 1),
        ("DIR/outside/../images/base", 1), ("./a:b", 3), ("links/back/base", 1), ("toInside", 1),
        ("../outside/secret", nil), ("sub/../../outside/secret", nil), ("./../outside/secret", nil),
        ("sub/../../images/../outside/secret", nil), ("DIR/outside/secret", nil), ("DIR/images/../outside/secret", nil),
        ("DIR//outside//secret", nil), ("out", nil), ("./out", nil), ("up/outside/secret", nil), ("up/images/out", nil),
        ("../images-evil/secret", nil), ("DIR/images-evil/secret", nil), ("up/images-evil/secret", nil),
        ("links/outside/secret", nil), ("links/evil", nil), ("links/deep", nil), ("/etc/passwd", nil),
        ("/etc/hostname", nil),
        ("../../../../../../etc/passwd", nil), ("up/../../../etc/passwd", nil), ("/usr/bin/env", nil),
        ("absolute", nil),
    ]

    private func makeLinks() throws {
        try scene.directory.makeDirectory("images/links")
        for (name, target) in [
            ("links/back", ".."), ("links/outside", "../../outside"), ("links/evil", "../../images-evil/secret"),
            ("links/deep", "back/links/outside/secret"), ("absolute", "/etc/passwd"),
            ("toInside", scene.directory.path("images/base")),
        ] {
            try FileManager.default.createSymbolicLink(atPath: "\(scene.images)/\(name)", withDestinationPath: target)
        }
    }

    @Test("where a backing file really is decides", arguments: names)
    func directory(name: String, byte: UInt8?) throws {
        try makeLinks()
        try scene.makeImage(BackingName(68, name, .refused(2, "")))
        if let byte {
            for directory in ["images", "./images/", "images/../images", "\(scene.images)", "outside/../images"] {
                expectSuccess(
                    try scene.run(["io", "--backing-dir", directory, "images/image.qed", "read -P \(byte) 0 64k"]))
            }
            expectSuccess(
                try scene.run([
                    "io", "--backing-dir", "outside", "--backing-dir", "images", "images/image.qed", "write 4k 4k",
                ]))
            expectRefusal(
                try scene.run(["io", "--backing-dir", "outside", "images/image.qed", "read 0 4k"]), 2,
                "lies outside the directories that --backing-dir allows")
        } else {
            try expectRefused(["--backing-dir", "images"], "lies outside the directories that --backing-dir allows")
        }
    }

    /// What is refused without --backing-dir is refused with it, wherever it lies.
    @Test(
        "what is no plain file stays refused",
        arguments: [
            "fifo", "socket", "sub", "", "json:{}", "nbd://x", "fat:.", "a:b", "circle", "/proc/self/cwd/images/base",
            "/dev/null",
            "/dev/fd/0", "/proc/self/root/etc/passwd",
        ])
    func noPlainFile(name: String) throws {
        try scene.makeImage(BackingName(68, name, .refused(2, "")))
        for directories in [["images"], ["/"], ["images", "/dev", "/proc"]] {
            try expectRefused(directories.flatMap { ["--backing-dir", $0] }, name.isEmpty ? "name is empty" : "")
        }
    }

    @Test("every command is held to it", arguments: ["out", "../images-evil/secret", "/etc/passwd"])
    func everyCommand(name: String) throws {
        try scene.makeImage(BackingName(68, name, .refused(2, "")))
        try expectRefused(["--backing-dir", "images"], "lies outside the directories", byAll: true)
    }

    @Test("the root allows every plain file")
    func root() throws {
        try scene.makeImage(BackingName(68, "DIR/outside/secret", .opened(9)))
        expectSuccess(try scene.run(["io", "--backing-dir", "/", "images/image.qed", "read -P 9 0 64k"]))
    }

    @Test("the whole chain is held to it")
    func wholeChain() throws {
        var middle = ImageBuilder.empty(clusterSize: 65536, tableSize: 4)
        middle.setBackingFile("../outside/secret", isRaw: true)
        try middle.write(to: "\(scene.images)/middle.qed")
        try scene.makeImage(BackingName(68, "middle.qed", isRaw: false, .opened(9)))
        expectSuccess(try scene.run(["io", "images/image.qed", "read -P 9 0 64k"]))
        try expectRefused(
            ["--backing-dir", "images"],
            "images/../outside/secret: lies outside the directories that --backing-dir allows")
        // The new base of a rebase is the user's to name, but not what that names.
        try ImageBuilder.empty(clusterSize: 65536, tableSize: 4).write(to: scene.image)
        expectRefusal(
            try scene.run(["rebase", "--backing-dir", "images", "-b", "middle.qed", "-F", "qed", "images/image.qed"]),
            2,
            "lies outside the directories")
        expectSuccess(
            try scene.run([
                "rebase", "--backing-dir", "images", "-b", "../outside/secret", "-F", "raw", "images/image.qed",
            ]))
    }

    /// A refusal must not depend on the command that asks.
    @Test("commit writes into no file outside")
    func commit() throws {
        try scene.makeImage(BackingName(68, "out", .opened(9)))
        expectSuccess(try scene.run(["io", "images/image.qed", "write -P 5 0 64k"]))
        let before = try scene.directory.contents()
        expectRefusal(try scene.run(["commit", "--backing-dir", "images", "images/image.qed"]), 2, "(it is really ")
        #expect(try scene.directory.contents() == before)
        expectSuccess(
            try scene.run(["commit", "-q", "--backing-dir", "outside", "images/image.qed"]))
        #expect(try readFile(scene.directory.path("outside/secret"))[0] == 5)
    }

    @Test(
        "directories that are none",
        arguments: [
            ("none", Int32(4), "none: no such file"), ("images/base", 64, "images/base: not a directory"),
            ("images/fifo", 64, "images/fifo: not a directory"),
        ])
    func noDirectory(name: String, status: Int32, sentence: String) throws {
        expectRefusal(try scene.run(["map", "--backing-dir", name, "images/base.qed"]), status, sentence)
    }

    /// Whoever may write to the directory exchanges what the image names, again and again, for a link to a secret. The
    /// file itself is judged after it has been found, so what is read is always inside.
    @Test("an exchange while the file is being opened gains nothing")
    func race() async throws {
        try scene.makeImage(BackingName(68, "moving", .opened(1)))
        let images = scene.images
        let stop = StopFlag()
        let exchange = Thread {
            while !stop.isSet {
                for source in ["out", "base"] {
                    _ = Glibc.unlink("\(images)/next")
                    if source == "base" {
                        _ = Glibc.link("\(images)/base", "\(images)/next")
                    } else {
                        _ = Glibc.symlink("../outside/secret", "\(images)/next")
                    }
                    _ = Glibc.rename("\(images)/next", "\(images)/moving")
                }
            }
        }
        try FileManager.default.copyItem(atPath: "\(images)/base", toPath: "\(images)/moving")
        exchange.start()
        defer { stop.set() }
        let policy = BackingPolicy(directories: [try HeldDirectory(images)])
        var opened = 0
        var refused = 0
        for _ in 0..<3000 {
            do {
                let chain = try ImageChain.open(
                    path: scene.image, isReadOnly: true, caching: .buffered, locking: .none, policy: policy)
                #expect(try chain[1].file.readBytes(byteCount: 1) == [1])
                opened += 1
            } catch ChainError.image(.file(.outsideDirectories), _) {
                refused += 1
            }
        }
        // Otherwise nothing was exchanged while something was opened.
        #expect(opened > 0 && refused > 0, "\(opened) opened, \(refused) refused")
    }

    // MARK: add

    @Test(
        "every command that opens backing files has the options",
        arguments: [
            "add", "bench", "commit", "compare", "convert", "flatten", "info", "io", "map", "measure", "rebase",
            "resize",
        ])
    func options(command: String) throws {
        let help = try scene.run([command, "--help"]).output
        for option in ["--no-backing", "--backing-dir <dir>", "--backing-devices"] { #expect(help.contains(option)) }
    }

    /// The session of a device, which needs no driver.
    @Test("a device's server is held to it", arguments: ["out", "base"])
    func server(name: String) throws {
        try scene.makeImage(BackingName(68, name, .refused(2, "")))
        var configuration = ServerConfiguration(imagePath: scene.image)
        configuration.isReadOnly = true
        try ImageSession(configuration).close()
        configuration.backing = BackingPolicy(directories: [try HeldDirectory(scene.images)])
        if name == "base" {
            try ImageSession(configuration).close()
        } else {
            #expect(throws: ServerError.self) { try ImageSession(configuration) }
        }
        configuration.backing = BackingPolicy(refusesBackingFiles: true)
        #expect(throws: ServerError.self) { try ImageSession(configuration) }
    }
}

/// Told to a thread by another.
final class StopFlag: @unchecked Sendable {
    private let lock = NSLock()
    private var value = false

    var isSet: Bool { lock.withLock { value } }
    func set() { lock.withLock { value = true } }
}
