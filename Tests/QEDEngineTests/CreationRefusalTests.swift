import BlockStorage
import QEDChain
import QEDEngine
import QEDFormat
import TestSupport
import Testing

/// Everything that makes `create` refuse, each time with the directory as it was before.
@Suite struct CreationRefusalTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// Spoils a creation that would succeed, and returns the error it then fails with.
        let spoil: @Sendable (inout ImageCreation, TemporaryDirectory) throws -> ImageCreationError

        init(
            _ description: String,
            spoil: @escaping @Sendable (inout ImageCreation, TemporaryDirectory) throws -> ImageCreationError
        ) {
            testDescription = description
            self.spoil = spoil
        }
    }

    /// Names of what is in the directory, as far as it is in the way of a new image.
    static let taken = ["base.raw", "directory", "dangling", "fifo", "directory/.."]

    static let pathCases =
        taken.map { name in
            Case("\(name) exists") { creation, directory in
                creation.path = directory.path(name)
                return .alreadyExists(path: creation.path)
            }
        } + [
            Case("no such directory") { creation, directory in
                creation.path = directory.path("none/new.qed")
                return .directoryNotFound(path: creation.path)
            },
            Case("the directory is a file") { creation, directory in
                creation.path = directory.path("base.raw/new.qed")
                return .directoryNotFound(path: creation.path)
            },
        ]

    static let optionCases = [
        Case("no size") { creation, _ in
            creation.sizeBytes = nil
            return .sizeMissing(path: creation.path)
        },
        Case("size beyond the tables") { creation, _ in
            creation.sizeBytes = (1 << 46) + 1
            return .cannotBeDescribed(
                path: creation.path, .imageSizeTooLarge(bytes: (1 << 46) + 1, maximumBytes: 1 << 46))
        },
        Case("size beyond everything") { creation, _ in
            creation.sizeBytes = .max
            return .cannotBeDescribed(path: creation.path, .imageSizeTooLarge(bytes: .max, maximumBytes: 1 << 46))
        },
        Case("tables of one cluster") { creation, _ in
            creation.geometry = try QEDGeometry(clusterSizeBytes: 65536, tableSizeClusters: 1)
            return .qemuCannotOpen(path: creation.path, .tablesOfOneCluster)
        },
        Case("tables that could map 2^64 bytes") { creation, _ in
            creation.geometry = try QEDGeometry(clusterSizeBytes: 4 << 20, tableSizeClusters: 4)
            return .qemuCannotOpen(path: creation.path, .maximumImageSizeWraps)
        },
    ]

    static let backingCases = [
        Case("no backing file") { creation, directory in
            creation.backing = .init(name: "none", format: .raw)
            return .backingFile(.file(.notFound(path: directory.path("none"))))
        },
        Case("backing file is a directory") { creation, directory in
            creation.backing = .init(name: "directory", format: .raw)
            return .backingFile(.file(.notARegularFile(path: directory.path("directory"))))
        },
        Case("backing file is a FIFO") { creation, directory in
            creation.backing = .init(name: "fifo", format: .raw)
            return .backingFile(.file(.notARegularFile(path: directory.path("fifo"))))
        },
        Case("backing file is a character device") { creation, _ in
            creation.backing = .init(name: "/dev/zero", format: .raw)
            return .backingFile(.file(.notARegularFile(path: "/dev/zero")))
        },
        Case("QED backing file is raw") { creation, directory in
            creation.backing = .init(name: "base.raw", format: .qed)
            return .backingFile(.format(path: directory.path("base.raw"), .notQED))
        },
        Case("QED backing file is damaged") { creation, directory in
            var bytes = try QEDHeader(newImageOfSizeBytes: 512, geometry: .standard).encoded()
            bytes.replaceSubrange(4..<8, with: [0x88, 0x13, 0, 0])
            try writeFile(directory.path("damaged.qed"), bytes + [UInt8](repeating: 0, count: 400_000))
            creation.backing = .init(name: "damaged.qed", format: .qed)
            return .backingFile(.format(path: directory.path("damaged.qed"), .invalidClusterSize(bytes: 5000)))
        },
        Case("empty backing name") { creation, _ in
            creation.backing = .init(name: "", format: .raw)
            return .cannotBeDescribed(path: creation.path, .backingFileNameEmpty)
        },
        Case("a backing name like a protocol is the name of a file") { creation, directory in
            creation.backing = .init(name: "nbd:host", format: .raw)
            return .backingFile(.file(.notFound(path: directory.path("./nbd:host"))))
        },
        Case("backing name longer than the header area") { creation, _ in
            creation.geometry = try QEDGeometry(clusterSizeBytes: 4096, tableSizeClusters: 2)
            creation.backing = .init(name: String(repeating: "./", count: 2013) + "base.raw", format: .raw)
            return .cannotBeDescribed(
                path: creation.path,
                .backingFileNameOutsideHeaderArea(fileOffset: 64, sizeBytes: 4034, headerAreaSizeBytes: 4096))
        },
        Case("backing name longer than any path") { creation, _ in
            creation.backing = .init(name: String(repeating: "a", count: 4096), format: .raw)
            return .cannotBeDescribed(path: creation.path, .backingFileNameTooLong(sizeBytes: 4096))
        },
    ]

    @Test("refusals leave nothing behind", arguments: pathCases + optionCases + backingCases)
    func refusal(refused: Case) throws {
        let directory = try TemporaryDirectory()
        try writeFile(directory.path("base.raw"), [1, 2, 3])
        try directory.makeDirectory("directory")
        try require(["mkfifo", "fifo"], in: directory.path)
        try require(["ln", "-s", "nowhere", "dangling"], in: directory.path)
        var creation = ImageCreation(path: directory.path("new.qed"), sizeBytes: 1 << 30)
        let error = try refused.spoil(&creation, directory)

        let before = try directory.contents()
        #expect(throws: error) { try creation.create() }
        #expect(try directory.contents() == before)
    }

    /// Unspoiled, the same creation succeeds: what the refusals refuse is what was spoiled.
    @Test func theCreationThatIsSpoiledWouldSucceed() throws {
        let directory = try TemporaryDirectory()
        try writeFile(directory.path("base.raw"), [1, 2, 3])
        _ = try ImageCreation(
            path: directory.path("new.qed"), sizeBytes: 1 << 30, backing: .init(name: "base.raw", format: .raw)
        ).create()
        #expect(try directory.contents().keys.sorted() == ["base.raw", "new.qed"])
    }

    /// Nobody, root included, may create files in sysfs.
    @Test func noPermission() throws {
        #expect(throws: ImageCreationError.noPermission(path: "/sys/new.qed")) {
            try ImageCreation(path: "/sys/new.qed", sizeBytes: 512).create()
        }
    }
}
