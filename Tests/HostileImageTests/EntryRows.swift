import TestSupport

/// Rows 30 to 57: the entries of the tables. Clusters are those of the specimen.
enum EntryRows {
    static let all = l2Entries + shared + fileEnd + l1Entries + harmless

    private static let cluster: UInt64 = 65536
    private static let end: UInt64 = 11 * cluster

    /// The second cluster's entry is lost, and so its cluster leaks.
    private static let oneLost = Expectation.invalid(1, leaks: 1, failing: [cluster], repaired: .leaks(1))

    static let l2Entries: [HostileImage] =
        ([2, 0x800, 6 * cluster + 1, 6 * cluster + 512] as [UInt64]).map { value in
            HostileImage(30, "L2 entry \(value)", oneLost) { $0.l2(0, 1, value) }
        }
        + ([end, 1 << 40, 1 << 63, .max, .max - (cluster - 1)] as [UInt64]).map { value in
            HostileImage(31, "L2 entry \(value)", oneLost) { $0.l2(0, 1, value) }
        } + [
            HostileImage(32, "L2 entry in the header area", oneLost) {
                $0 = .specimen(headerClusters: 2)
                $0.l2(0, 1, cluster)
            }
        ]

    static let shared: [HostileImage] = [
        HostileImage(33, "L2 entry names the L1 table", .shared(1, leaks: 1, unreadable: [cluster])) {
            $0.l2(0, 1, cluster)
        },
        HostileImage(34, "L2 entry names its own table", .shared(1, leaks: 1, unreadable: [cluster])) {
            $0.l2(0, 1, 3 * cluster)
        },
        HostileImage(34, "L2 entry names another table", .shared(1, leaks: 2, unreadable: [cluster])) {
            $0.l2(0, 1, 9 * cluster)
        },
        HostileImage(35, "two L2 entries for one cluster", .shared(1, leaks: 1, reads: [cluster: 1])) {
            $0.l2(0, 1, 5 * cluster)
        },
    ]

    static let fileEnd: [HostileImage] =
        [
            HostileImage(
                36, "neighbouring entries that go past the end of the file",
                .invalid(2, failing: [1 << 30 + cluster, 1 << 30 + 2 * cluster], repaired: .sound)
            ) {
                $0.l2(1, 1, end)
                $0.l2(1, 2, end + cluster)
            },
            HostileImage(
                49, "an entry at the end of the file, left by a crash",
                .invalid(1, failing: [1 << 30 + 5 * cluster], repaired: .sound)
            ) { $0.l2(1, 5, end) },
        ]
        + ([512, 4096, 65535, 65536] as [UInt64]).map { bytes in
            HostileImage(
                37, "\(bytes) bytes of the last cluster missing", .invalid(1, failing: [1 << 30], repaired: .sound)
            ) {
                $0.header.fileSizeBytes -= bytes
            }
        }
        + ([1, 511] as [UInt64]).map { bytes in
            HostileImage(38, "\(bytes) bytes of the last cluster missing", .served(reads: [0: 1, 1 << 30: 0])) {
                $0.fill(cluster: 10, 0)
                $0.header.fileSizeBytes -= bytes
            }
        }
        + ([1, 511] as [UInt64]).map { bytes in
            HostileImage(38, "\(bytes) bytes of the last table missing", .served(reads: [0: 1, 3 << 30 - cluster: 0])) {
                $0.l1(2, end)
                $0.header.fileSizeBytes += 2 * cluster - bytes
            }
        }
        + ([1, 1000, 65024] as [UInt64]).map { bytes in
            HostileImage(39, "\(bytes) bytes behind the last cluster", .served()) {
                $0.put(Array(repeating: 0xee, count: Int(bytes)), at: end)
                $0.header.fileSizeBytes += bytes
            }
        }

    /// The second table is lost with its data: three clusters leak, and are left alone by the repair that drops it.
    private static let tableLost = Expectation.invalid(1, leaks: 3, failing: [1 << 30], repaired: .leaks(3))

    static let l1Entries: [HostileImage] =
        ([1, 2, 8 * cluster + 512, 8 * cluster + 8] as [UInt64]).map { value in
            HostileImage(40, "L1 entry \(value)", tableLost) { $0.l1(1, value) }
        }
        + ([10 * cluster, end, 1 << 40, .max - (cluster - 1)] as [UInt64]).map { value in
            HostileImage(41, "L1 entry \(value)", tableLost) { $0.l1(1, value) }
        } + [
            HostileImage(42, "L1 entry names the L1 table", .shared(2, leaks: 3, unreadable: [1 << 30])) {
                $0.l1(1, cluster)
            },
            HostileImage(43, "two L1 entries for one table", .shared(2, leaks: 3, reads: [1 << 30: 1])) {
                $0.l1(1, 3 * cluster)
            },
            HostileImage(44, "a table over the second half of another", .shared(2, leaks: 3, unreadable: [1 << 30])) {
                $0.l1(1, 4 * cluster)
            },
            HostileImage(44, "a table over the first half of another", .shared(2, leaks: 3, unreadable: [1 << 30])) {
                $0.l1(1, 2 * cluster)
            },
            HostileImage(45, "L1 entry names data", .shared(2, leaks: 3, failing: [1 << 30])) {
                $0.l1(1, 5 * cluster)
            },
            HostileImage(
                45, "L1 entry names garbage that is nobody's",
                .invalid(16384, failing: [2 << 30, 2 << 30 + 100 * cluster, 3 << 30 - cluster], repaired: .sound)
            ) {
                $0.fill(cluster: 11, 0xa5)
                $0.fill(cluster: 12, 0xff)
                $0.header.fileSizeBytes += 2 * cluster
                $0.l1(2, end)
            },
        ]

    static let harmless: [HostileImage] = [
        HostileImage(
            46, "a table of zero clusters",
            .served(
                .leaks(1), repaired: .sound, reads: [0: 1, 1 << 30 + cluster: 0, 2 << 30 - cluster: 0],
                writes: [1 << 30, 1 << 30 + 4096, 2 << 30 - 2 * cluster])
        ) { image in
            for index in 0..<16384 as Range<UInt64> { image.l2(1, index, 1) }
        },
        HostileImage(
            47, "a table and entries behind the end of the image",
            .served(reads: [0: 1, 65536: 2], writes: [0, 65536])
        ) { $0.header.imageSize = 2 * cluster },
        HostileImage(54, "an empty table, and data that nobody names", .served(.leaks(1), repaired: .sound)) {
            $0.fill(cluster: 13, 0xee)
            $0.header.fileSizeBytes += 3 * cluster
            $0.l1(2, end)
        },
    ]
}
