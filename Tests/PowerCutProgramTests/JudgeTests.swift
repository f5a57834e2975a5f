import Testing

@testable import qed_ublk_power_cuts

/// The judge of power cuts notices what it is there for, and allows what may be.
@Suite struct JudgeTests {
    private static let plan = WritePlan(seed: 3, firstNumber: 601)

    /// A disk as it is, sector by sector, and what the test does to it.
    private struct Disk {
        var changed: [Int: SectorContent] = [:]

        func content(_ sector: Int) -> SectorContent { changed[sector] ?? .initial(sector) }

        mutating func perform(_ write: WritePlan.Write, sectors: Range<Int> = 0..<Layout.blockSectors) {
            for sector in sectors {
                changed[write.block * Layout.strideSectors + sector] =
                    .written(number: write.number, block: write.block, sector: sector)
            }
        }
    }

    private var disk = Disk()
    private var judge = BlockJudge(floors: [Int](repeating: 0, count: BlockJudge.floorCount))
    /// All writers' writes of the first boot were flushed up to these numbers.
    private let noted = [650, 640, 0]

    /// Every write that was flushed is on the disk.
    init() {
        for writer in 0..<WritePlan.writers {
            for write in Self.plan.writes(ofWriter: writer) where write.number <= noted[writer] { disk.perform(write) }
        }
    }

    private mutating func verdict(_ plan: WritePlan? = plan, noted: [Int]? = nil) -> BlockJudge.Verdict {
        judge.judge(plan, noted: noted ?? self.noted, content: disk.content)
    }

    /// One that no later write of the same block hides.
    private func lastWrite(before limit: Int, ofWriter writer: Int = 0) throws -> WritePlan.Write {
        try #require(Self.plan.writes(ofWriter: writer).last { $0.number <= limit })
    }

    @Test("a disk that holds what was flushed, and no more")
    mutating func sound() throws {
        let verdict = verdict()
        #expect(verdict.complaints == [] && verdict.sectorsWithLaterValues == 0)
        #expect(verdict.coveredBlocks > 60)
    }

    @Test("of writes that were not flushed each sector may have any, or none")
    mutating func later() throws {
        let writes = Self.plan.writes(ofWriter: 2)
        disk.perform(writes[0])
        disk.perform(writes[5], sectors: 2..<5)
        let verdict = verdict()
        #expect(verdict.complaints == [] && verdict.sectorsWithLaterValues == 11)
    }

    @Test("what was on the disk after a cut has to be there after the next")
    mutating func floors() throws {
        let write = try lastWrite(before: .max, ofWriter: 2)
        disk.perform(write, sectors: 1..<3)
        #expect(verdict().complaints == [])
        let next = WritePlan(seed: 4, firstNumber: Self.plan.nextNumber)
        #expect(verdict(next, noted: [0, 0, 0]).complaints == [])
        let sector = write.block * Layout.strideSectors + 2
        disk.changed[sector] = nil
        let complaint =
            "sector 2 of block \(write.block) holds \(SectorContent.initial(sector)), not write \(write.number) or a later one"
        #expect(verdict(next, noted: [0, 0, 0]).complaints == [complaint])
    }

    @Test("a flushed write that is lost, in one sector")
    mutating func lost() throws {
        let write = try lastWrite(before: 650)
        disk.changed[write.block * Layout.strideSectors + 7] = nil
        #expect(verdict().complaintCount == 1)
    }

    @Test("an older write than the flushed one")
    mutating func older() throws {
        let writes = Self.plan.writes(ofWriter: 0).filter { $0.number <= 650 }
        let twice = try #require(writes.last { last in writes.contains { $0.block == last.block && $0.number < last.number } })
        disk.perform(try #require(writes.first { $0.block == twice.block }), sectors: 3..<4)
        let verdict = verdict()
        #expect(verdict.complaintCount == 1)
        #expect(verdict.complaints[0].hasPrefix("sector 3 of block \(twice.block) has write "))
    }

    @Test("writes that nobody has planned, or that are somewhere else")
    mutating func foreign() throws {
        disk.changed[0] = .written(number: 5000, block: 0, sector: 0)
        disk.changed[Layout.strideSectors + 1] = .written(number: 601, block: 1, sector: 2)
        disk.changed[20] = .written(number: 601, block: 0, sector: 20)
        disk.changed[Layout.baseSectors + 100] = .base(sector: 5)
        disk.changed[30] = .zeros
        disk.changed[Layout.sectors - 1] = .unknown
        #expect(verdict().complaintCount == 6)
    }

    @Test("a plan repeats with its seed; its writers share no block; a number is one write")
    func plans() throws {
        var blocks: [Int: Int] = [:]
        for writer in 0..<WritePlan.writers {
            let writes = Self.plan.writes(ofWriter: writer)
            #expect(writes == Self.plan.writes(ofWriter: writer))
            #expect(writes.map(\.number) == Array(601...4600))
            #expect(writes.count { $0.isLastOfGroup } > 60)
            for write in writes { #expect(blocks.updateValue(writer, forKey: write.block) ?? writer == writer) }
        }
        #expect(blocks.keys.allSatisfy { (0..<Layout.blocks).contains($0) } && blocks.count > 700)
        #expect(WritePlan(seed: 4, firstNumber: 601).writes(ofWriter: 0) != Self.plan.writes(ofWriter: 0))
        #expect(Self.plan.nextNumber == 4601)
    }

    @Test(
        "a sector is what it says, to the byte",
        arguments: [.zeros, .base(sector: 0), .base(sector: 24575), .written(number: 12, block: 345, sector: 6)]
            as [SectorContent])
    func sectors(content: SectorContent) {
        #expect(content.bytes.count == 512)
        #expect(SectorContent(content.bytes) == content)
        for place in [0, 1, 200, 511] {
            var bytes = content.bytes
            bytes[place] ^= 0x10
            #expect(SectorContent(bytes) != content)
            if place > 10 { #expect(SectorContent(bytes) == .unknown) }
        }
        #expect(SectorContent(content.bytes.dropLast()) == .unknown)
    }

    @Test(
        "sectors that are none",
        arguments: ["q", "q1", "q1,2", "q1,2,3,4", "q1,,3", "q01,2,3", "base", "baseX", "base1,2", "b1", "q-1,2,3"])
    func malformed(text: String) {
        let bytes = Array(text.utf8)
        #expect(SectorContent(bytes + [UInt8](repeating: 32, count: 511 - bytes.count) + [10]) == .unknown)
    }

    @Test("a file is whole or not")
    func files() {
        let content = NumberedFiles.content(7, lines: 1000)
        #expect(NumberedFiles.isWhole(content, number: 7))
        #expect(!NumberedFiles.isWhole(content, number: 8))
        #expect(!NumberedFiles.isWhole([], number: 7))
        #expect(!NumberedFiles.isWhole(content + [10], number: 7))
        for length in [0, 1, 100, content.count - 4, content.count - 1] {
            #expect(!NumberedFiles.isWhole(Array(content[..<length]), number: 7))
        }
        var zeros = content
        for place in 1024..<1536 { zeros[place] = 0 }
        #expect(!NumberedFiles.isWhole(zeros, number: 7))
    }
}
