import FuzzImages
import Glibc

/// What fuzzing starts from: sound images of several geometries, one image for each kind of fault that hostile images are
/// known to have, and work for those that open.
enum Seeds {
    struct Seed {
        var name: String
        /// The chain, without the `end` item.
        var chain: [UInt8]
    }

    /// Writes the seeds of every target to a folder of its name.
    static func write(to folder: String) {
        mkdir(folder, 0o755)
        for target in Target.allCases {
            let own = folder + "/" + target.rawValue
            mkdir(own, 0o755)
            var count = 0
            for seed in all {
                for (number, work) in work(for: target).enumerated() {
                    let input = seed.chain + [ImageRecipe.Item.end.rawValue] + work
                    guard let file = fopen("\(own)/\(seed.name)-\(number)", "wb") else { fail("cannot write to \(own)") }
                    fwrite(input, 1, input.count, file)
                    fclose(file)
                    count += 1
                }
            }
            print("\(target.rawValue): \(count) seeds")
        }
    }

    /// What follows the chain.
    private static func work(for target: Target) -> [[UInt8]] {
        switch target {
        case .open, .check: [[]]
        case .repair: [[0], [1], [2]]
        case .write: GuestSeeds.all
        }
    }

    // MARK: - Images

    /// The header's bytes; see `HeaderRecipe`.
    static func image(
        geometry: Int = 1, flags: UInt8 = 0, places: UInt8 = 0, size: UInt16 = 64, sizeKind: UInt8 = 0,
        spare: UInt8 = 0, tail: UInt8 = 0, extra: UInt8 = 0
    ) -> [UInt8] {
        let limit = HeaderRecipe.geometries.count
        let choice = geometry < 5 ? UInt8(geometry) : (0xa0...0xfe).first { Int($0) % limit == geometry } ?? 0
        return [
            choice, flags, places, UInt8(truncatingIfNeeded: size), UInt8(truncatingIfNeeded: size >> 8), sizeKind, spare,
            tail, extra,
        ]
    }

    static func item(_ item: ImageRecipe.Item, _ arguments: UInt8...) -> [UInt8] { [item.rawValue] + arguments }

    static func map(_ clusters: UInt8...) -> [UInt8] { clusters.flatMap { item(.map, $0) } }

    /// Entry values by their numbers in `MemberBuilder`.
    static let oddValues: [[UInt8]] =
        [
            [0], [1], [2, 0], [2, 1], [2, 2], [2, 3], [2, 5], [6], [7, 0], [7, 1], [8, 0], [9], [10], [11], [12], [13], [14],
            [15, 1], [15, 5], [16, 2], [17], [18], [19], [20], [21], [22], [23, 1, 8], [24, 0, 16], [26], [27], [28], [29],
            [30],
        ]

    static var all: [Seed] {
        var seeds: [Seed] = []
        func add(_ name: String, _ parts: [UInt8]...) {
            seeds.append(Seed(name: name, chain: [0] + parts.flatMap { $0 }))
        }
        let sound = map(0, 1, 5, 63) + item(.mapZero, 2)

        for geometry in HeaderRecipe.geometries.indices {
            add("sound-\(geometry)", image(geometry: geometry), sound)
            add("partial-\(geometry)", image(geometry: geometry, size: 7, sizeKind: 0x80), map(0, 7))
        }
        add("empty-device", image(size: 0))
        add("small-device", image(size: 3, sizeKind: 0x81), map(0))
        for kind in 0x82...0x8a as ClosedRange<UInt8> { add("size-\(kind)", image(sizeKind: kind), map(0)) }
        for geometry in [13, 14, 16] {
            for kind in [0x84, 0x86, 0x87, 0x8a] as [UInt8] {
                add("size-\(kind)-\(geometry)", image(geometry: geometry, sizeKind: kind), map(0, 0xe0))
            }
        }
        for flags in 0..<32 as Range<UInt8> { add("flags-\(flags)", image(flags: flags), sound) }
        add("unknown-feature", image(flags: 0xe0), sound)
        add("places", image(places: 0x31), sound)
        for spare in [1, 5, 200] as [UInt8] { add("leaks-\(spare)", image(spare: spare), sound) }
        add("dirty-leaks", image(flags: 2, spare: 3), sound)
        for tail in 1..<UInt8(HeaderRecipe.tails.count) {
            add("tail-\(tail)", image(tail: tail), sound)
            add("dirty-tail-\(tail)", image(flags: 2, tail: tail), sound)
            add("backing-tail-\(tail)", image(flags: 1), map(1), item(.member), image(tail: tail), sound)
        }
        // Not 9, the most clusters that are counted: a second each.
        for extra in 1...12 as ClosedRange<UInt8> where extra != 9 { add("length-\(extra)", image(extra: extra), sound) }

        for (number, value) in oddValues.enumerated() {
            for flags in [0, 2] as [UInt8] {
                add("l1-\(number)-\(flags)", image(flags: flags), sound, item(.l1Entry, 1), value)
                add("l2-\(number)-\(flags)", image(flags: flags), sound, item(.l2Entry, 0, 3), value)
            }
            add("l1-16-\(number)", image(geometry: 4, spare: 40), sound, item(.l1Entry, 1), value, item(.l1Entry, 2), value)
            add("run-\(number)", image(spare: 20), sound, item(.run, 0, 10, 20, 0), value, [1])
            add("base-\(number)", image(flags: 1), map(1), item(.member), image(), sound, item(.l2Entry, 0, 3), value)
        }
        add("shared-tables", image(size: 0x2000), map(0, 1), item(.run, 0x80, 0, 0xff, 3, 7, 0, 0))
        add("shared-data", image(), map(0, 1), item(.run, 0, 0, 0xff, 3, 8, 0, 0))
        add("tables-of-zeros", image(size: 0x2000, extra: 6), item(.run, 0x80, 0, 0xff, 3, 2, 8, 2))
        add("tables-one-apart", image(geometry: 4, size: 0x2000, extra: 6), map(0), item(.run, 0x80, 0, 0xff, 0, 2, 40, 1))
        add("content-as-table", image(), map(0, 1, 2), item(.l1Entry, 1, 8, 1))

        for offset in 0..<16 as Range<UInt8> {
            for value in [[0], [1], [2, 3], [16, 3], [16, 63], [17], [18], [25, 27], [15, 1]] as [[UInt8]] {
                add("field-\(offset)-\(value[0])", image(flags: 1), sound, item(.field, offset), value)
            }
        }
        for name in ["base", "a:b", "./a:b", "/etc/passwd", "nbd://x", "a\0b", "\u{fffd}", ""] {
            let bytes = Array(name.utf8)
            add("name-\(bytes.count)-\(bytes.first ?? 0)", image(flags: 1), item(.name, UInt8(bytes.count)), bytes, map(1))
        }
        add("name-not-utf8", image(flags: 1), item(.name, 4), [0xff, 0xfe, 0x80, 0x41], map(1))

        add("over-qed", image(flags: 1), map(1, 4), item(.member), image(size: 32), sound)
        add("over-larger", image(flags: 1), map(1), item(.member), image(geometry: 3, size: 200), sound)
        add("over-smaller", image(flags: 1), map(1), item(.member), image(geometry: 0, size: 3, sizeKind: 0x80), map(0, 3))
        add("over-raw", image(flags: 5), map(1), item(.mapZero, 3), item(.member), [100, 0, 17, 1, 0, 9, 0, 40, 0, 99, 0])
        add(
            "over-two", image(flags: 1), map(1), item(.member), image(flags: 5, size: 40), map(2, 3), item(.member),
            [200, 0, 0, 8, 0, 9, 0, 16, 0, 3, 0])
        add("large-clusters-over-raw", image(geometry: 10, flags: 5), map(0), item(.member), [0, 4, 0, 1, 0, 130, 0, 0, 3])

        seeds.append(Seed(name: "raw-empty", chain: [ImageRecipe.raw, 0]))
        for (name, recipe) in [("sound", image()), ("one", image(geometry: 0)), ("name", image(flags: 5))] {
            let file = ImageRecipe.decode([0] + recipe + sound).files[0]
            for count in [4, 44, 63, 64, 512, 4096, 12288] where UInt64(count) <= file.length {
                for extra in [0, 3, 6] as [UInt8] {
                    seeds.append(
                        Seed(
                            name: "raw-\(name)-\(count)-\(extra)",
                            chain: [ImageRecipe.raw, extra] + file.bytes(at: 0, count: count)))
                }
            }
        }
        return seeds
    }
}

/// Work for the guest of an image that opens.
enum GuestSeeds {
    /// A byte about the session, then operations with place, shift and length each; see `GuestWork`.
    static let all: [[UInt8]] = [
        [0],
        // Reads and writes side by side, a flush, time.
        [0, 0, 0, 0, 7, 8, 9, 0, 0x40, 3, 0x60, 0, 0x40, 6, 0x81, 5, 0x85, 3, 0xfe],
        // Overwrites, zeroes and discards of what is there, with FUA.
        [
            0, 0x40, 0x61, 0, 0, 0xc4, 0x62, 0, 0x40, 0x44, 0x63, 0x82, 1, 5, 0x60, 0, 0x41, 0x82, 0x61, 0x81, 0x8a, 6, 4, 0, 0,
            0xff,
        ],
        // Records of an earlier process.
        [0x43, 0, 9, 0x81, 0, 1, 1, 0x82, 0, 3, 0, 0, 0, 2, 0x40, 6],
        [0x41, 0, 9, 0x81, 0, 0, 1, 0, 6],
        [0x7f, 1, 1, 0x83, 0, 1, 2, 0x83],
    ]
}
