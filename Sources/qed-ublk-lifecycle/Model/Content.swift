/// What an image may hold, sector by sector, by what was acknowledged of it.
///
/// Each write has values that no other write, no other sector and no other image has, so a value says whose it is.
struct Content: Equatable {
    struct Sector: Equatable {
        /// What a flush, or a closed image, has made sure of.
        var settled: UInt64
        /// What was acknowledged since, in order.
        var later: [UInt64] = []
        /// Writes that were not acknowledged, and may have happened.
        var unanswered: [UInt64] = []
        /// What the dead server knew of the tables is gone: any of all that holds.
        var isLoose = false

        var current: UInt64 { later.last ?? settled }

        func allows(_ value: UInt64) -> Bool {
            value == current || unanswered.contains(value) || isLoose && (value == settled || later.contains(value))
        }
    }

    private(set) var sectors: [Sector]
    /// The file system in front of the sectors; nil where there is none, or none that can be relied on.
    var fileSystem: FileSystem?

    init(_ values: [UInt64]) { sectors = values.map { Sector(settled: $0) } }

    /// The write was acknowledged.
    mutating func write(_ values: [UInt64], at first: Int) {
        for (index, value) in values.enumerated() {
            sectors[first + index].later.append(value)
            sectors[first + index].unanswered = []
            sectors[first + index].isLoose = false
        }
    }

    /// The write may have happened, or not, or may still happen.
    mutating func mayHaveWritten(_ values: [UInt64], at first: Int) {
        for (index, value) in values.enumerated() { sectors[first + index].unanswered.append(value) }
    }

    /// A flush was acknowledged, or the image was closed.
    mutating func settle() {
        for index in sectors.indices where !sectors[index].isLoose {
            sectors[index].settled = sectors[index].current
            sectors[index].later = []
        }
    }

    /// The log of the mapping is lost, and somebody has accepted that.
    mutating func lose() {
        for index in sectors.indices where !sectors[index].later.isEmpty || !sectors[index].unanswered.isEmpty {
            sectors[index].isLoose = true
        }
        fileSystem = nil
    }

    /// Judges what was read of sectors from `first` on. What was read once is what they hold from then on.
    mutating func read(_ values: [UInt64], at first: Int, from source: String) throws(Breach) {
        for (index, value) in values.enumerated() {
            let sector = sectors[first + index]
            guard sector.allows(value) else {
                throw Breach(
                    "sector \(first + index) is \(hex(value)) in \(source), and may be \(hex(sector.current))"
                        + (sector.unanswered.isEmpty ? "" : ", not acknowledged: \(sector.unanswered.map(hex))")
                        + (sector.isLoose ? ", lost: \(([sector.settled] + sector.later).map(hex))" : ""))
            }
            if value != sector.current || sector.isLoose {
                sectors[first + index] = Sector(settled: sector.settled, later: [value])
            }
        }
    }

    private func hex(_ value: UInt64) -> String { String(value, radix: 16) }
}

/// The files of a file system on a device.
struct FileSystem: Equatable {
    enum Certainty { case synced, written }

    /// By name: what the file holds, and whether its writer was told that it is durable.
    var files: [Int: Certainty] = [:]

    /// Everything was written back: a clean unmount, or a removal that waited for it.
    mutating func settle() { for name in files.keys { files[name] = .synced } }

    /// What was not synced may be there or not.
    mutating func forget() { files = files.filter { $0.value == .synced } }
}
