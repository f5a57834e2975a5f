import BlockStorage
import CSupport
import DeviceServer
import Glibc
import Platform
import RealDisk
import Simulation
import Ublk

/// Plays the steps of a seed on the real program, and judges what comes of each by the model.
struct Player {
    var world = World()
    var generator: Generator
    /// Chances that the model does not know: places of writes.
    var random: SeededRandom
    var values: Values
    var store: Store
    let program: String
    let keepsLog: Bool
    var history: [String] = []

    /// By the number of the device: what holds it open, what writes to it.
    var holds: [Int: Int32] = [:]
    var writers: [Int: Writer] = [:]
    /// By the process: the device that it supervises. The first server is its child, which tells; those after it are not.
    var supervisors: [Int: Int] = [:]
    /// What tells a device of the kernel from one that had its number before, as its record has it.
    var nonces: [Int: UInt64] = [:]
    var copies: [Int: [UInt8]] = [:]
    /// The images of devices that are gone, while a write to one of them may be under way.
    var struckFiles: [Int: FileID] = [:]
    var fileIDs: [FileIdentity: FileID] = [:]
    /// What the files on the devices' file systems hold is told by their name.
    var nextFileName = 1
    let runtime = "/run/qed-ublk"

    init(seed: UInt64, program: String, storeKind: String, without: [String], keepsLog: Bool) {
        generator = Generator(seed: seed)
        generator.without = without
        random = SeededRandom(seed: ~seed)
        values = Values(seed: seed)
        store = Store(kind: storeKind)
        self.program = program
        self.keepsLog = keepsLog
    }

    /// Makes the images: two plain ones, and one over a raw file that has values of its own.
    mutating func begin() throws(Breach) {
        try store.make()
        mkdir(runtime, 0o755)
        try Store.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=755", "tmpfs", runtime])
        let base = values.next(0..<Layout.sectorCount)
        try makeBase(base)
        for name in Generator.names {
            let overlay = name == "c" ? ["--backing", "base.raw", "--backing-format", "raw"] : ["\(Layout.sizeMiB)M"]
            let file = Store.path(name)
            let arguments = name == "c" ? ["create"] + overlay + [file] : ["create", file] + overlay
            try Store.run([program] + arguments)
            var image = ImageFile(
                content: Content(name == "c" ? base : [UInt64](repeating: 0, count: Layout.sectorCount)),
                sizeMiB: Layout.sizeMiB)
            image.isOverlay = name == "c"
            world.files[world.nextFile] = image
            world.names[name] = world.nextFile
            if let stored = StoredImage(file) { fileIDs[stored.identity] = world.nextFile }
            world.nextFile += 1
        }
    }

    func makeBase(_ values: [UInt64]) throws(Breach) {
        let path = "\(Store.directory)/base.raw"
        let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0, ftruncate(descriptor, off_t(Layout.sizeMiB << 20)) == 0 else {
            throw Breach("cannot make \(path)")
        }
        defer { close(descriptor) }
        let buffer = AlignedBuffer(byteCount: 512)
        for (sector, value) in values.enumerated() {
            SectorValue.fill(buffer.address, value)
            let write = SectorWrite(first: sector, values: [value])
            guard pwrite(descriptor, buffer.address, 512, off_t(write.offset)) == 512 else {
                throw Breach("cannot write \(path)")
            }
        }
    }

    /// One step.
    mutating func play(_ number: Int) throws(Breach) {
        let step = generator.step(number, in: world)
        note("\(number). \(step)")
        try perform(step)
        try endWriters()
    }

    mutating func note(_ line: String) {
        history.append(line)
        if keepsLog {
            print(line)
            fflush(nil)
        }
    }

    mutating func perform(_ step: Step) throws(Breach) {
        switch step {
        case .add(_, _, let interruption), .del(_, _, let interruption), .recover(_, _, _, let interruption),
            .create(_, _, let interruption), .tool(_, _, let interruption):
            try performCommand(step, interruption)
        case .recoverAll: try performCommand(step, .none)
        case .kill(let id), .killSupervisor(let id), .killSupervisorLater(let id, _): try kill(id, step)
        case .terminate(let id), .terminateSupervisor(let id): try terminate(id, step)
        case .upgrade(let id, let isSupervised): try upgrade(id, isSupervised: isSupervised, step)
        case .pause(let id, let milliseconds): try pause(id, milliseconds)
        case .strike(let id, let milliseconds): try strike(id, milliseconds, step)
        case .replace(let name, let other): try replace(name, by: other)
        case .copyOver(let name): try copyOver(name)
        case .putBack(let name): try putBack(name)
        case .wipe(let wiped): wipe(wiped)
        case .copyRecords: copyRecords()
        case .putRecordsBack: try putRecordsBack()
        case .fillRuntime: fillRuntime()
        case .freeRuntime:
            unlink("\(runtime)/filler")
            world.runtimeIsFull = false
        case .remount(let otherFirst): try store.remount(otherFirst: otherFirst)
        case .write(let id, let count): try write(id, count, isZero: false)
        case .zero(let id, let count): try write(id, count, isZero: true)
        case .flush(let id): try flush(id)
        case .hold(let id): try hold(id)
        case .holdPartition(let id): try holdPartition(id)
        case .release(let id): release(id)
        case .mount(let id): try mount(id)
        case .writeFile(let id, let sync): try writeFile(id, sync: sync)
        case .unmount(let id): try unmount(id)
        case .read(let id): try judge(id)
        case .examine(let name): try examine(name)
        }
    }

    /// All devices go, whatever state they are in, and what the images hold is compared.
    mutating func end() throws(Breach) {
        note("the end")
        try perform(.freeRuntime)
        for id in holds.keys.sorted() { release(id) }
        for (id, device) in world.devices where device.isMounted && device.life == .live { try unmount(id) }
        // Those that no command can ask.
        for (id, device) in world.devices where device.life == .live {
            if !device.hasRecord || !device.hasSocket || device.isRecordOld { try terminate(id, .terminate(id)) }
        }
        for id in world.devices.keys.sorted() { try performCommand(.del(id, force: false, .none), .none) }
        for id in world.devices.keys.sorted() { try performCommand(.del(id, force: true, .none), .none) }
        guard world.devices.isEmpty else { throw Breach("devices \(world.devices.keys.sorted()) cannot be removed") }
        for name in world.names.keys.sorted() { try examine(name) }
    }

    /// Leaves nothing, also after a failure, as far as that goes.
    /// - Returns: whether nothing is left.
    mutating func cleanUp() -> Bool {
        for process in Kernel.servers().sorted(by: { $0.role > $1.role }) { Glibc.kill(Int32(process.id), SIGKILL) }
        for file in world.files.keys { _ = try? Store.run(["umount", "-l", mountPoint(file)]) }
        for id in Kernel.devices() { _ = try? run(["del", "--force", "--timeout", "1", "\(id)"], directory: "/", .none) }
        // Those of which the program knows nothing.
        if let control = try? UblkControlDevice() {
            for id in Kernel.devices() { _ = try? control.forgetDevice(UInt32(id)) }
        }
        for id in holds.keys.sorted() { release(id) }
        for writer in writers.values { _ = writer.hasEnded(within: 5) }
        _ = try? Store.run(["umount", runtime])
        store.end()
        return Kernel.devices().isEmpty && Kernel.servers().isEmpty && access(Store.path("a"), F_OK) != 0
    }
}
