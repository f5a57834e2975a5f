import Foundation
import TestSupport
import Testing

/// Rows 59 to 77: names of backing files, with no policy but the one that always holds.
@Suite struct BackingNameTests {
    static let names: [BackingName] = files + protocols + noFiles + kernel

    static let files: [BackingName] = [
        BackingName(65, "base", .opened(1)),
        BackingName(65, "base.qed", isRaw: false, .opened(2)),
        BackingName(65, "none", .refused(4, "images/none: no such file (it is the backing file of images/image.qed)")),
        BackingName(65, "none/base", .refused(4, "no such file")),
        BackingName(65, "base/base", .refused(4, "no such file")),
        BackingName(65, "dangling", .refused(4, "no such file")),
        BackingName(68, "../outside/secret", .opened(9)),
        BackingName(68, "DIR/outside/secret", .opened(9)),
        BackingName(68, "out", .opened(9)),
        BackingName(68, "./sub/../in", .opened(4)),
        BackingName(60, String(repeating: "./", count: 2040) + "base", .opened(1)),
        BackingName(60, String(repeating: "x", count: 4095), .refused(4, "no such file")),
        BackingName(60, "/" + String(repeating: "d/", count: 2047), .refused(4, "no such file")),
        BackingName(64, bytes: [0x62, 0xff, 0xfe], .refused(2, "is not valid UTF-8")),
        BackingName(64, bytes: Array("../".utf8) + [0xc0, 0xaf], .refused(2, "is not valid UTF-8")),
        BackingName(64, "b\u{1b}[31ma\nse", .refused(4, "b\\u{1b}[31ma\\u{a}se: no such file")),
    ]

    private static let refusedProtocol = BackingName.Outcome.refused(2, "looks like a protocol and an address")

    static let protocols: [BackingName] =
        [
            "json:{\"driver\":\"file\",\"filename\":\"base\"}", "json:{}", "nbd:unix:/tmp/s", "fat:rw:/tmp", "fat:ro:sub",
            "file:base", "file:///etc/passwd",
            "host_device:/dev/vda",
            "http://127.0.0.1/", "ssh://host/x", "rbd:pool/x", "iscsi://host/x", "blkdebug::base", "nosuch:foo",
            "null-co://",
        ].map { BackingName(69, $0, refusedProtocol) } + [
            BackingName(69, "nbd://127.0.0.1:1/x", .refused(2, "an image may name only where --base-allow")),
            BackingName(69, "nbds://h/", isRaw: false, .refused(2, "the image does not say that it is raw")),
            BackingName(69, "nbd+unix:///?socket=s", .refused(2, "names no socket by its whole path")),
            BackingName(69, "nbd://h/?tls-psk-file=/etc/passwd", .refused(2, "could name files of this machine")),
            BackingName(70, "a:b", refusedProtocol),
            BackingName(70, ":", refusedProtocol),
            BackingName(70, "./a:b", .opened(3)),
            BackingName(70, "sub/../a:b", .opened(3)),
        ]

    static let noFiles: [BackingName] = [
        BackingName(71, ".", .refused(2, "not a regular file")),
        BackingName(71, "..", .refused(2, "not a regular file")),
        BackingName(71, "sub", .refused(2, "not a regular file")),
        BackingName(71, "sub/", .refused(2, "not a regular file")),
        BackingName(71, "base/", .refused(4, "no such file")),
        BackingName(71, "/", .refused(2, "not a regular file")),
        BackingName(71, "circle", .refused(2, "not a regular file")),
        // These would wait in open.
        BackingName(72, "fifo", .refused(2, "not a regular file")),
        BackingName(72, "fifo", isRaw: false, .refused(2, "not a regular file")),
        BackingName(72, "socket", .refused(2, "not a regular file")),
        BackingName(
            76, "qcow2", isRaw: false, .refused(2, "is not a QED image, and the image does not say that it is raw")),
        BackingName(
            76, "base", isRaw: false, .refused(2, "is not a QED image, and the image does not say that it is raw")),
        BackingName(66, "image.qed", isRaw: false, .refused(2, "form a loop")),
        BackingName(66, "image.qed", .refused(2, "form a loop")),
        BackingName(66, "up/images/image.qed", isRaw: false, .refused(2, "form a loop")),
    ]

    /// What an image must not be able to open, or to read.
    static let kernel: [BackingName] =
        [
            "/dev/null", "/dev/zero", "/dev/tty", "/dev/stdin", "/dev/fd/0", "/dev/fd/1", "/dev/watchdog",
            "/dev/net/tun",
            "/proc/self/mem", "/proc/self/environ", "/proc/kcore", "/proc/kmsg", "/proc/self/exe", "/proc/self/fd/0",
            "/proc/self/cwd/images/base", "/proc/self/root/etc/passwd",
            "/sys/kernel/uevent_seqnum", "/proc/sys/kernel/hostname", "../../../../../../../../proc/version",
        ].map { name in
            // Some are not there everywhere.
            let isThere =
                name.hasPrefix("..") || name.hasPrefix("/proc/self") || FileManager.default.fileExists(atPath: name)
            return BackingName(68, name, .refused(isThere ? 2 : 4, ""))
        }

    let scene: BackingScene

    init() throws { scene = try BackingScene() }

    static let openers: [[String]] = [
        ["io", "images/image.qed", "read 0 4k"], ["io", "images/image.qed", "write 0 4k"],
        ["info", "--backing-chain", "images/image.qed"], ["map", "images/image.qed"], ["measure", "images/image.qed"],
        ["convert", "images/image.qed", "copy"], ["bench", "-c", "1", "images/image.qed"],
        ["resize", "images/image.qed", "+1G"], ["flatten", "images/image.qed"], ["commit", "images/image.qed"],
    ]

    @Test("names", arguments: names)
    func name(_ name: BackingName) throws {
        try scene.makeImage(name)
        let before = try readFile(scene.image)
        // Nothing is opened to tell what the image says, or whether its tables are sound.
        expectSuccess(try scene.run(["info", "images/image.qed"]))
        #expect(try scene.run(["check", "images/image.qed"]).status == 0)
        switch name.outcome {
        case .opened(let byte):
            expectSuccess(try scene.run(["io", "images/image.qed", "read -P \(byte) 0 64k"]))
            expectSuccess(try scene.run(["info", "--backing-chain", "images/image.qed"]))
            #expect(try readFile(scene.image) == before)
            expectSuccess(try scene.run(["io", "images/image.qed", "write -P 8 4k 4k", "read -P \(byte) 0 4k"]))
            expectSuccess(try scene.run(["io", "images/image.qed", "read -P 8 4k 4k", "read -P \(byte) 8k 56k"]))
        case .refused(let status, let reason):
            for command in Self.openers.prefix(3) { expectRefusal(try scene.run(command), status, reason) }
            #expect(try readFile(scene.image) == before)
        }
    }

    @Test("every command refuses alike", arguments: openers)
    func everyCommand(_ command: [String]) throws {
        for name in ["fifo", "nbd://127.0.0.1:1/x", "/proc/self/mem", "/dev/null"] {
            try scene.makeImage(BackingName(68, name, .refused(2, "")))
            let before = try scene.directory.contents()
            expectRefusal(try scene.run(command), 2, "")
            #expect(try scene.directory.contents() == before)
        }
    }

    /// A device acts when it is opened, and what it holds is not the image's to name.
    @Test("row 68: no block device, unless the user allows it", .enabled(if: BlockDevice.any != nil))
    func blockDevice() throws {
        let device = try #require(BlockDevice.any)
        try scene.makeImage(BackingName(68, device, .refused(2, "")))
        let before = try readFile(scene.image)
        for command in Self.openers {
            expectRefusal(try scene.run(command), 2, "\(device): a block device, which an image may name only where")
        }
        #expect(try readFile(scene.image) == before)
        expectSuccess(try scene.run(["map", "--backing-devices", "-U", "images/image.qed"]))
        expectRefusal(
            try scene.run(["map", "--backing-devices", "--backing-dir", "images", "images/image.qed"]), 2,
            "lies outside the directories that --backing-dir allows")
        // Never as an image, whoever asks.
        try scene.makeImage(BackingName(68, device, isRaw: false, .refused(2, "")))
        expectRefusal(
            try scene.run(["map", "--backing-devices", "images/image.qed"]), 2, "not a regular file")
        expectRefusal(try scene.run(["info", device]), 2, "not a regular file")
        expectRefusal(try scene.run(["io", device, "write 0 4k"]), 2, "not a regular file")
    }

    @Test("row 59: a name that ends with the header area")
    func nameAtTheEnd() throws {
        var image = ImageBuilder.empty(clusterSize: 4096, tableSize: 2)
        image.setBackingFile(Array("base".utf8), isRaw: true, at: 4092)
        try image.write(to: scene.image)
        expectSuccess(try scene.run(["io", "images/image.qed", "read -P 1 0 64k", "write 0 4k"]))
        #expect(try readFile(scene.image)[4092..<4096].elementsEqual("base".utf8))
    }

    /// As QEMU has it: the directory of the path that is given, not that of the file it leads to.
    @Test("row 67: a relative name begins at the link to the image")
    func relativeToTheLink() throws {
        try scene.makeImage(BackingName(67, "secret", .opened(9)))
        expectRefusal(try scene.run(["map", "images/image.qed"]), 4, "images/secret: no such file")
        try FileManager.default.createSymbolicLink(
            atPath: scene.directory.path("outside/image.qed"), withDestinationPath: "../images/image.qed")
        expectSuccess(try scene.run(["io", "outside/image.qed", "read -P 9 0 64k"]))
        try require(
            ["qemu-io", "-r", "-f", "qed", "outside/image.qed", "-c", "read -P 9 0 64k"], in: scene.directory.path)
    }

    @Test("row 70: names with colons are written so that nobody misreads them")
    func colonsAreWrittenWithAPath() throws {
        expectSuccess(try scene.run(["create", "--backing", "a:b", "--backing-format", "raw", "images/new.qed"]))
        #expect(try scene.run(["info", "images/new.qed"]).output.contains("backing file: ./a:b"))
        try require(
            ["qemu-io", "-r", "-f", "qed", "images/new.qed", "-c", "read -P 3 0 64k"], in: scene.directory.path)
    }

    @Test("row 73: a base that ends inside a sector is followed by zeros")
    func shortBase() throws {
        try scene.makeImage(BackingName(73, "short", .opened(6)))
        let reads = ["read -P 6 0 1000", "read -P 0 1000 100k"]
        expectSuccess(try scene.run(["io", "images/image.qed"] + reads))
        expectSuccess(try scene.run(["io", "images/image.qed", "write -P 8 2k 512"]))
        expectSuccess(
            try scene.run(["io", "images/image.qed", "read -P 8 2k 512", "read -P 6 0 1000", "read -P 0 1000 1048"]))
        try require(
            ["qemu-io", "-r", "-f", "qed", "images/image.qed", "-c", "read -P 6 0 1000", "-c", "read -P 0 1000 1048"],
            in: scene.directory.path)
    }

    @Test("rows 74 and 75: a base is what the image declares, whatever it holds", arguments: ["base.qed", "qcow2"])
    func declaredFormat(base: String) throws {
        try scene.makeImage(BackingName(75, base, .opened(0)))
        let result = try scene.run(["io", "images/image.qed", "read -v 0 4"])
        #expect(result.output.contains(base == "qcow2" ? "51 46 49 fb" : "51 45 44 00"))
    }

    @Test("row 77: a damaged base is served as it is, and never written")
    func damagedBase() throws {
        var base = ImageBuilder.specimen()
        base.header.features = 2
        base.l2(0, 1, 12345)
        base.l1(1, 1)
        try base.write(to: "\(scene.images)/base.qed")
        try scene.makeImage(BackingName(77, "base.qed", isRaw: false, .opened(1)))
        let before = try readFile("\(scene.images)/base.qed")
        expectSuccess(try scene.run(["io", "images/image.qed", "read -P 1 0 64k", "read -P 3 128k 64k"]))
        expectRefusal(try scene.run(["io", "images/image.qed", "read 64k 4k"]), 1, "Input/output error")
        expectSuccess(try scene.run(["io", "images/image.qed", "write -P 8 0 4k", "write -P 8 128k 4k"]))
        // The rest of the cluster would have to come from there.
        expectRefusal(try scene.run(["io", "images/image.qed", "write 64k 4k"]), 1, "Input/output error")
        expectSuccess(try scene.run(["io", "images/image.qed", "write -P 8 64k 64k", "read -P 8 64k 64k"]))
        // The cluster that was meant for the write that failed is lost.
        #expect(try scene.run(["check", "images/image.qed"]).status == 3)
        #expect(try readFile("\(scene.images)/base.qed") == before)
    }

    /// In the base too the last sector may be cut.
    @Test("row 38: a base that lacks 300 bytes of its last cluster")
    func cutBase() throws {
        var base = ImageBuilder.specimen()
        base.header.fileSizeBytes -= 300
        try base.write(to: "\(scene.images)/base.qed")
        try scene.makeImage(BackingName(38, "base.qed", isRaw: false, .opened(1)))
        var image = ImageBuilder.empty(clusterSize: 65536, tableSize: 4, imageSize: 2 << 30)
        image.setBackingFile("base.qed", isRaw: false)
        try image.write(to: scene.image)
        let end = 1 << 30 + 65536
        let reads = ["read -P 4 1G 65236", "read -P 0 \(end - 300) 300"]
        expectSuccess(try scene.run(["io", "images/image.qed"] + reads))
        expectSuccess(try scene.run(["io", "images/image.qed", "write -P 4 1G 4k"]))
        expectSuccess(try scene.run(["io", "images/image.qed"] + reads))
    }

    @Test("row 79: a name that has no room in the header area is not written")
    func nameTooLongForTheHeader() throws {
        let long = String(repeating: "./", count: 2016) + "base"
        expectRefusal(
            try scene.run([
                "create", "--cluster-size", "4k", "--backing", long, "--backing-format", "raw", "images/new.qed",
            ]), 64, "does not fit in the header area of 4096 bytes")
        #expect(!FileManager.default.fileExists(atPath: "\(scene.images)/new.qed"))
        var image = ImageBuilder.empty(clusterSize: 4096, tableSize: 2)
        image.setBackingFile("base", isRaw: true)
        try image.write(to: scene.image)
        let before = try readFile(scene.image)
        expectRefusal(
            try scene.run(["rebase", "-u", "-b", long, "-F", "raw", "images/image.qed"]), 64,
            "has no room in its header")
        #expect(try readFile(scene.image) == before)
    }

    @Test("row 66: two images that name each other")
    func mutualLoop() throws {
        try scene.makeImage(BackingName(66, "other.qed", isRaw: false, .opened(0)))
        var other = ImageBuilder.empty(clusterSize: 65536, tableSize: 4)
        other.setBackingFile("image.qed", isRaw: false)
        try other.write(to: "\(scene.images)/other.qed")
        for command in Self.openers { expectRefusal(try scene.run(command), 2, "form a loop") }
    }

    @Test("row 80: a chain of thousands of images")
    func deepChain() throws {
        for number in 0..<1100 {
            var image = ImageBuilder.empty(clusterSize: 4096, tableSize: 2)
            image.setBackingFile("\(number + 1).qed", isRaw: false)
            try image.write(to: "\(scene.images)/\(number).qed")
        }
        for command in Self.openers {
            let arguments = command.map { $0 == "images/image.qed" ? "images/0.qed" : $0 }
            expectRefusal(try scene.run(arguments), 2, "a chain of more than 1000 files")
        }
        // The longest that is allowed.
        try ImageBuilder.empty(clusterSize: 4096, tableSize: 2).write(to: "\(scene.images)/999.qed")
        expectSuccess(try scene.run(["io", "images/0.qed", "read -P 0 0 1M", "write 0 4k"]))
    }
}
