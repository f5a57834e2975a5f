import TestSupport

/// Rows 1 to 29: the file, its header and the place of the L1 table.
enum HeaderRows {
    static let all = file + geometry + headerArea + l1Table + imageSize + features

    static let file: [HostileImage] =
        [
            HostileImage(1, "an empty file", .refused("the file does not start with the QED magic bytes")) {
                $0.header.fileSizeBytes = 0
            },
            HostileImage(2, "4 bytes", .refused("the file ends after 4 bytes, inside its 64-byte header")) {
                $0.header.fileSizeBytes = 4
            },
            HostileImage(2, "63 bytes", .refused("the file ends after 63 bytes, inside its 64-byte header")) {
                $0.header.fileSizeBytes = 63
            },
            HostileImage(2, "64 bytes", .refused("does not fit in the file of 64 bytes")) {
                $0.header.fileSizeBytes = 64
            },
        ]
        + ([0, 0x5145_4400, 0x0144_4551, 0x0044_4552, 0xfb49_4651] as [UInt32]).map { magic in
            HostileImage(3, "magic 0x\(String(magic, radix: 16))", .refused("does not start with the QED magic bytes")) {
                $0.header.magic = magic
            }
        }

    static let geometry: [HostileImage] =
        ([0, 2048, 5000, 1 << 27, 0xffff_ffff] as [UInt32]).map { bytes in
            HostileImage(4, "clusters of \(bytes) bytes", .refused("the cluster size is \(bytes) bytes, but must be")) {
                $0.header.clusterSize = bytes
            }
        }
        + ([0, 3, 32, 0xffff_ffff] as [UInt32]).map { clusters in
            HostileImage(5, "tables of \(clusters) clusters", .refused("the table size is \(clusters) clusters, but")) {
                $0.header.tableSize = clusters
            }
        } + [
            // QEMU never opens such an image; `info` says so, and `create` makes none without --force.
            HostileImage(6, "tables of one cluster", .served(reads: [0: 0], isReadByQEMU: false)) {
                $0 = .empty(clusterSize: 65536, tableSize: 1)
                $0.header.imageSize = 4 << 30
            },
            // The format allows tables of 1 GiB. Ours end at 16 MiB, which every geometry that QEMU opens keeps, so
            // that what a small file can make us read is bounded.
            HostileImage(7, "an L1 table of 1 GiB", .refused("has tables of 1073741824 bytes, and this version")) {
                $0 = .empty(clusterSize: 1 << 26, tableSize: 16, imageSize: 0)
            },
            HostileImage(7, "an L1 table of 128 MiB", .refused("has tables of 134217728 bytes, and this version")) {
                $0 = .empty(clusterSize: 1 << 26, tableSize: 2, imageSize: 0)
            },
            HostileImage(7, "an L1 table of 16 MiB", .served(reads: [0: 0, 1 << 46: 0], writes: [0, 1 << 46])) {
                $0 = .empty(clusterSize: 1 << 20, tableSize: 16, imageSize: 1 << 50)
            },
        ]
        + [(22, 2), (23, 1), (24, 0)].map { clusterShift, tableShift in
            HostileImage(
                8, "clusters of 2^\(clusterShift) bytes, tables of \(1 << tableShift): the maximum wraps at 2^64",
                .served(
                    reads: [0: 0, (1 << 63) - (1 << 30) - 65536: 0], writes: [0, (1 << 63) - (1 << 30) - 65536],
                    isReadByQEMU: false)
            ) {
                $0 = .empty(clusterSize: 1 << clusterShift, tableSize: 1 << tableShift)
                $0.header.imageSize = (1 << 63) - (1 << 30)
            }
        }

    static let headerArea: [HostileImage] =
        [(9, 0), (10, 65536)].map { row, offset in
            HostileImage(row, "header size 0, L1 table at \(offset)", .refused("the header area is 0 clusters")) {
                $0.header.headerSize = 0
                $0.header.l1TableOffset = UInt64(offset)
            }
        }
        + ([2, 65535, 65536, 0xffff_ffff] as [UInt32]).map { clusters in
            HostileImage(
                11, "a header area of \(clusters) clusters over the L1 table", .refused("inside the header area")
            ) {
                $0.header.headerSize = clusters
            }
        } + [
            HostileImage(11, "a header area of 4 GiB", .refused("the header area is 65536 clusters of 65536 bytes")) {
                $0.header.headerSize = 65536
                $0.header.l1TableOffset = 1 << 40
                $0.header.fileSizeBytes = 1 << 41
            },
            HostileImage(12, "a header area of two clusters", .served()) { $0 = .specimen(headerClusters: 2) },
            HostileImage(12, "a header area of 65535 clusters", .served()) { $0 = .specimen(headerClusters: 65535) },
        ]

    static let l1Table: [HostileImage] =
        ([0, 65536] as [UInt64]).map { offset in
            HostileImage(13, "L1 table at \(offset), inside the header area", .refused("inside the header area")) {
                $0 = .specimen(headerClusters: 2)
                $0.header.l1TableOffset = offset
            }
        }
        + ([65537, 65536 + 512, 65536 + 4096, .max, 1 << 63 | 8] as [UInt64]).map { offset in
            HostileImage(14, "L1 table at \(offset)", .refused("which is not a multiple of the cluster size")) {
                $0.header.l1TableOffset = offset
            }
        }
        // The last two wrap when the table's size is added.
        + ([10 << 16, 11 << 16, 1 << 40, 1 << 63, 0 &- 131_072, 0 &- 65536] as [UInt64]).map { offset in
            HostileImage(15, "L1 table at \(offset)", .refused("does not fit in the file of 720896 bytes")) {
                $0.header.l1TableOffset = offset
            }
        }
        + ([512, 65536] as [UInt64]).map { bytes in
            HostileImage(16, "\(bytes) bytes of the L1 table missing", .refused("does not fit in the file of")) {
                $0 = .empty(clusterSize: 65536, tableSize: 4)
                $0.header.fileSizeBytes -= bytes
            }
        }
        // QEMU takes the missing bytes for zeros. Nobody writes such a file.
        + ([1, 511] as [UInt64]).map { bytes in
            HostileImage(17, "\(bytes) bytes of the L1 table missing", .refused("does not fit in the file of")) {
                $0 = .empty(clusterSize: 65536, tableSize: 4)
                $0.header.fileSizeBytes -= bytes
            }
        } + [
            HostileImage(18, "the L1 table behind the data", .served(.leaks(2))) {
                $0.header.l1TableOffset = 11 << 16
                $0.l1(0, $0.tables[0])
                $0.l1(1, $0.tables[1])
                $0.header.fileSizeBytes = 13 << 16
            }
        ]

    static let imageSize: [HostileImage] =
        ([1, 511, 513, .max] as [UInt64]).map { bytes in
            HostileImage(19, "an image of \(bytes) bytes", .refused("is \(bytes) bytes, but must be a multiple of 512")) {
                $0.header.imageSize = bytes
            }
        }
        + [(20, (1 << 63) - 512), (21, 1 << 63), (22, 0 &- 512)].map { row, bytes in
            HostileImage(row, "an image of \(bytes) bytes", .refused("allow 9223372035781033984 at most")) {
                $0 = .empty(clusterSize: 1 << 21, tableSize: 8, imageSize: bytes)
            }
        } + [
            HostileImage(22, "larger than its tables can map", .refused("allow 17592186044416 at most")) {
                $0.header.imageSize = (1 << 44) + 512
            },
            HostileImage(23, "the last cluster in part", .served(reads: [0: 1, 65536: 2], writes: [0, 193_024])) {
                $0.header.imageSize = 3 * 65536 + 512
            },
            HostileImage(24, "an image of 0 bytes", .served(reads: [:], writes: [])) {
                $0 = .empty(clusterSize: 65536, tableSize: 4, imageSize: 0)
            },
        ]

    static let features: [HostileImage] =
        ([3, 32, 63] as [UInt64]).map { bit in
            HostileImage(
                25, "feature bit \(bit)", .refused("(bits 0x\(String(UInt64(1) << bit, radix: 16)) at byte 16)")
            ) {
                $0.header.features = 1 << bit | 2
            }
        } + [
            HostileImage(26, "all compat bits", .served()) { $0.header.compatFeatures = .max },
            HostileImage(27, "all autoclear bits", .served()) { $0.header.autoclearFeatures = .max },
            HostileImage(28, "NO_PROBE without a backing file", .served()) {
                $0.header.features = 4
                $0.header.backingFileNameOffset = .max
                $0.header.backingFileNameSize = .max
            },
            HostileImage(29, "other bytes in the header area", .served()) {
                $0.put(Array(repeating: 0xee, count: 65536 - 64), at: 64)
            },
        ]
}
