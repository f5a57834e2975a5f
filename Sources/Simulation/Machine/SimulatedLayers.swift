import QEDEngine

/// Whether the names of an image's files, after a switch of its top, survive a power cut: if not, its name leads to what was
/// the top before. One operation gives both files their names, so that there is nothing in between.
final class SimulatedNames: @unchecked Sendable {
    // SAFETY: a simulation has one thread.
    var areDurable = false
}

/// An overlay that is open, and about to become the top.
struct NextTop {
    var image: Image
    var disk: SimulatedDisk
    var session: SimulatedSession?
    var names: SimulatedNames
}

/// What was the top before a switch, until it is a sealed layer like others.
struct LowerLayer {
    enum Seal {
        case open, underWay, done
    }

    var disk: SimulatedDisk
    var session: SimulatedSession?
    var names: SimulatedNames
    /// At the moment of the switch: what the layer is to hold from then on.
    var history: SectorHistory
    var seal = Seal.open
}

/// A QED file beneath the image that nothing changes any more, and where its sectors are.
public struct FrozenLayer {
    let disk: SimulatedDisk
    let walk: StructureWalk

    init(_ disk: SimulatedDisk) {
        self.disk = disk
        walk = StructureWalk(disk.current, length: disk.length)
    }

    var backingFile: Machine.BackingFile { Machine.BackingFile(disk: disk, isRaw: false) }
}

extension Scene {
    /// What a sector reads as through layers above the scene's own.
    func value(_ sector: Int, through layers: [FrozenLayer]) -> UInt64 {
        for layer in layers {
            switch layer.walk.place(ofSector: sector) {
            case .backing: continue
            case .zeros: return 0
            case .file(let position): return layer.disk.current.sector(position).map(SectorValue.read) ?? 0
            }
        }
        return initialValue(sector)
    }
}
