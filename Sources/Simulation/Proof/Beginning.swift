import QEDEngine

/// What a proof finds when it begins: an image, perhaps a dead process's log, and what its sectors may hold.
struct Beginning {
    enum Kind: CaseIterable {
        case newImage
        /// NEED_CHECK set, and entries that point past the end: as another program's crash leaves an image.
        case damaged
        /// A process was killed before it had flushed anything.
        case killed
    }

    let kind: Kind
    private let scene: Scene
    private let disk: SimulatedDisk
    private let session: SimulatedSession?
    let history: SectorHistory

    static let logCapacity = 64

    init(_ kind: Kind, scene: Scene, backing: [Machine.BackingFile], seed: UInt64) throws {
        self.kind = kind
        self.scene = scene
        let blank = SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) }
        guard kind != .newImage else {
            disk = try scene.makeDisk()
            session = nil
            history = blank
            return
        }
        var random = SeededRandom(seed: seed)
        let log = kind == .killed ? SimulatedSession(capacity: Beginning.logCapacity) : nil
        let machine = Machine(
            disk: try scene.makeDisk(), backing: backing, options: Machine.Options(), seed: seed, session: log)
        if let refusal = try machine.open() { throw Violation("a new image is refused: \(refusal)") }
        let cluster = Int(scene.clusterSizeBytes / 512)
        let player = Player(machine: machine, history: blank, depth: 8, largestSectors: 2 * cluster)
        for number in 0..<8 where number == 0 || random.chance(1, in: 2) {
            player.start(PlayedRequest(.write, (number * cluster)..<(number * cluster + 5)))
        }
        try player.drain { _ in }
        if kind == .killed {
            log?.catchUp()
            try machine.takeDown()
        } else {
            player.start(PlayedRequest(.flush))
            try player.drain { _ in }
            if let error = try machine.close() { throw Violation("closing fails: \(error)") }
            Beginning.damage(machine.disk, &random, scene)
            guard StructureWalk(machine.disk.current, length: machine.disk.length).problem != nil else {
                throw Violation("the image was not damaged")
            }
        }
        disk = machine.disk
        session = log
        history = player.history
    }

    /// A machine on copies of what was found, with a log of its own.
    func machine(backing: [Machine.BackingFile], options: Machine.Options, seed: UInt64) -> Machine {
        let copy = SimulatedSession(capacity: Beginning.logCapacity)
        if let session { copy.inherit(from: session) }
        return Machine(disk: disk.clone(), backing: backing, options: options, seed: seed, session: copy)
    }

    /// Sets NEED_CHECK, and lets entries that were 0 point past the end.
    private static func damage(_ disk: SimulatedDisk, _ random: inout SeededRandom, _ scene: Scene) {
        let l1Table = Int(disk.current.word(at: 40))
        let table = Int(disk.current.word(at: l1Table))
        func set(_ offset: Int, _ value: UInt64) {
            let buffer = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 8)
            defer { buffer.deallocate() }
            disk.current.read(into: buffer, byteCount: 512, at: offset / 512 * 512)
            buffer.storeBytes(of: value.littleEndian, toByteOffset: offset % 512, as: UInt64.self)
            disk.write(buffer, byteCount: 512, at: UInt64(offset / 512 * 512))
        }
        set(16, disk.current.word(at: 16) | 2)
        for _ in 0...random.below(4) {
            // Behind the clusters that the history uses.
            let entry = 9 + random.below(7)
            set(table + entry * 8, disk.length + UInt64(random.below(4)) * scene.clusterSizeBytes)
        }
        // An entry of the L1 table, too: a table past the end.
        if random.chance(1, in: 2) {
            set(l1Table + 8 * (1 + random.below(8)), disk.length + 64 * scene.clusterSizeBytes)
        }
        disk.makeAllDurable()
    }
}
