import ArgumentParser
import Glibc
import Platform
import RealDisk

/// Writes what a power cut may take and what it may not, and judges what is there after one.
@main
struct QedUblkPowerCuts: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qed-ublk-power-cuts",
        abstract: "Test that what a flush has covered survives a power cut. For a virtual machine; overwrites its disk.",
        discussion: """
            'plan', then 'write' until the power is cut; after it 'check', and so on. NOTES is a folder on a disk that keeps \
            what it was told to. 'base' and 'start' are for the beginning: the first half of the disk is over a backing file.
            """, subcommands: [Base.self, Start.self, Plan.self, Write.self, Check.self])

    struct Base: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Write the backing file; the disk is twice as long.")
        @Argument var file: String

        func run() throws { try writeFile(file, (0..<Layout.baseSectors).flatMap { SectorContent.base(sector: $0).bytes }) }
    }

    struct Start: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Note that the disk is new; print its size in bytes.")
        @Argument var notes: String

        func run() throws {
            let notes = Notes(folder: notes)
            try notes.keep(floors: [Int](repeating: 0, count: BlockJudge.floorCount))
            try notes.keep(nil)
            try notes.forgetProgress()
            try syncFolder(notes.folder)
            print(Layout.sizeBytes)
        }
    }

    struct Plan: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Note what will be written, and that nothing of it has been.")
        @Argument var notes: String
        @Option(help: "Of the blocks, and where it is flushed.") var seed: UInt64

        func run() throws {
            let notes = Notes(folder: notes)
            try notes.keep(WritePlan(seed: seed, firstNumber: try notes.plan?.nextNumber ?? 1))
            try notes.forgetProgress()
        }
    }

    struct Write: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Write blocks to a disk and files to a folder, as planned.")
        @Argument var notes: String
        @Argument var device: String
        @Argument(help: "On another disk; empty.") var folder: String

        func run() throws {
            let notes = Notes(folder: notes)
            guard let plan = try notes.plan else { throw ProgramFailure("nothing is planned") }
            let disk = try BlockDevice(path: device)
            for writer in 0..<WritePlan.writers {
                let writer = BlockWriter(
                    writes: plan.writes(ofWriter: writer), note: try notes.note(ofWriter: writer), disk: disk)
                try BackgroundThread { writer.run() }.detach()
            }
            try NumberedFiles.write(in: folder, try notes.noteOfFiles(), seed: plan.seed)
        }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Judge what a power cut has left, and note it.")
        @Argument var notes: String
        @Argument var device: String
        @Argument(help: "Of the files.") var folder: String

        func run() throws {
            let notes = Notes(folder: notes)
            let disk = try BlockDevice(path: device, isReadOnly: true)
            guard disk.sizeBytes == Layout.sizeBytes else { throw ProgramFailure("\(device) has \(disk.sizeBytes) bytes") }
            let buffer = AlignedBuffer(byteCount: Layout.sizeBytes)
            let errno = disk.read(buffer.address, offset: 0, byteCount: Layout.sizeBytes)
            guard errno == 0 else { throw ProgramFailure("read \(device)", errno) }
            let bytes = UnsafeRawBufferPointer(start: buffer.address, count: Layout.sizeBytes)

            var judge = BlockJudge(floors: try notes.floors)
            let noted = try (0..<WritePlan.writers).map { try notes.noted(ofWriter: $0) }
            var verdict = judge.judge(try notes.plan, noted: noted) { sector in
                SectorContent(bytes[sector * Layout.sectorBytes..<(sector + 1) * Layout.sectorBytes])
            }
            let files = try notes.notedFile
            if let complaint = NumberedFiles.complaint(in: folder, count: files) { verdict.complain(complaint) }
            for complaint in verdict.complaints { print(complaint) }
            guard verdict.complaintCount == 0 else {
                print("\(verdict.complaintCount) complaints")
                throw ExitCode(1)
            }
            try notes.keep(floors: judge.floors)
            print(
                "\(verdict.coveredBlocks) blocks and \(files) files had been flushed; "
                    + "\(verdict.sectorsWithLaterValues) sectors have a later value")
        }
    }
}

/// One writer of blocks, on a thread of its own, until its plan or the power ends.
final class BlockWriter: @unchecked Sendable {
    // SAFETY: the thread's, from `run` on.
    private let writes: [WritePlan.Write]
    private let note: Notes.Note
    private let disk: BlockDevice
    private let buffer = AlignedBuffer(byteCount: Layout.blockBytes)

    init(writes: [WritePlan.Write], note: Notes.Note, disk: BlockDevice) {
        self.writes = writes
        self.note = note
        self.disk = disk
    }

    /// What fails while there is power ends the program, which the scenario notices.
    func run() {
        do throws(ProgramFailure) {
            for write in writes { try perform(write) }
        } catch {
            print(error)
            exit(1)
        }
    }

    private func perform(_ write: WritePlan.Write) throws(ProgramFailure) {
        let block = UnsafeMutableRawBufferPointer(start: buffer.address, count: Layout.blockBytes)
        for sector in 0..<Layout.blockSectors {
            let content = SectorContent.written(number: write.number, block: write.block, sector: sector)
            UnsafeMutableRawBufferPointer(rebasing: block[(sector * Layout.sectorBytes)...]).copyBytes(from: content.bytes)
        }
        let offset = write.block * Layout.strideSectors * Layout.sectorBytes
        var errno = disk.write(buffer.address, offset: offset, byteCount: Layout.blockBytes)
        guard errno == 0 else { throw ProgramFailure("write block \(write.block)", errno) }
        guard write.isLastOfGroup else { return }
        errno = disk.flush()
        guard errno == 0 else { throw ProgramFailure("flush", errno) }
        try note.set(write.number)
    }
}
