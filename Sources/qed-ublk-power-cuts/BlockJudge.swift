/// What the sectors of a disk must hold after a power cut, and whether they do.
///
/// A sector of a block that a flush had covered holds the write that it had then, or a later one. Of those since, which no flush
/// had covered, it may hold any, and each sector of a block another one. Everything else is as it was.
struct BlockJudge {
    /// Of each sector of the blocks, one block after the other, the number of the write that it holds at least; 0 for none.
    private(set) var floors: [Int]

    static let floorCount = Layout.blocks * Layout.blockSectors

    init(floors: [Int]) {
        precondition(floors.count == BlockJudge.floorCount, "a floor for each sector of each block")
        self.floors = floors
    }

    struct Verdict: Equatable {
        /// The first of them.
        var complaints: [String] = []
        var complaintCount = 0
        var coveredBlocks = 0
        var sectorsWithLaterValues = 0

        static let shownComplaints = 20

        mutating func complain(_ complaint: String) {
            complaintCount += 1
            if complaints.count < Verdict.shownComplaints { complaints.append(complaint) }
        }
    }

    /// Judges what the disk holds, and takes it for what it must hold from now on: it was on the disk.
    /// - Parameters:
    ///   - plan: of the boot that the power cut ended.
    ///   - noted: of each writer the number of the last write that it had flushed; 0 for none.
    ///   - content: of each sector of the disk.
    mutating func judge(_ plan: WritePlan?, noted: [Int], content: (_ sector: Int) -> SectorContent) -> Verdict {
        precondition(noted.count == WritePlan.writers, "a number for each writer")
        var verdict = Verdict()
        var planned = [Set<Int>](repeating: [], count: Layout.blocks)
        for writer in 0..<WritePlan.writers {
            for write in plan?.writes(ofWriter: writer) ?? [] {
                planned[write.block].insert(write.number)
                guard write.number <= noted[writer] else { continue }
                let first = write.block * Layout.blockSectors
                for sector in first..<(first + Layout.blockSectors) { floors[sector] = max(floors[sector], write.number) }
            }
        }
        for sector in 0..<Layout.sectors {
            let found = content(sector)
            if let block = Layout.block(ofSector: sector) {
                judge(sector, found, block, planned[block], &verdict)
            } else if found != .initial(sector) {
                verdict.complain("sector \(sector), of no block, holds \(found)")
            }
        }
        return verdict
    }

    private mutating func judge(
        _ sector: Int, _ found: SectorContent, _ block: Int, _ planned: Set<Int>, _ verdict: inout Verdict
    ) {
        let index = sector % Layout.strideSectors
        let place = "sector \(index) of block \(block)"
        let floor = floors[block * Layout.blockSectors + index]
        if index == 0 && floor > 0 { verdict.coveredBlocks += 1 }
        guard case .written(let number, block, index) = found else {
            if floor > 0 {
                verdict.complain("\(place) holds \(found), not write \(floor) or a later one")
            } else if found != .initial(sector) {
                verdict.complain("\(place) holds \(found), which was not written there")
            }
            return
        }
        if number < floor { verdict.complain("\(place) has write \(number), not \(floor) or a later one") }
        if number > floor {
            verdict.sectorsWithLaterValues += 1
            if !planned.contains(number) { verdict.complain("\(place) has write \(number), which is not its") }
        }
        floors[block * Layout.blockSectors + index] = number
    }
}
