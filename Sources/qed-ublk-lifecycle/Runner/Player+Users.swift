import Glibc
import Platform
import RealDisk
import Simulation

/// What users do with devices.
extension Player {
    func openDevice(_ id: Int) throws(Breach) -> BlockDevice {
        let path = DeviceAccess.path(id)
        let opened = try Deadline.run("opening \(path)") { Result { try BlockDevice(path: path) } }
        do { return try opened.get() } catch { throw Breach("opening \(path): \(error)") }
    }

    mutating func nextWrite(_ device: BlockDevice, isZero: Bool) -> SectorWrite {
        let block = max(device.blockSectors, 1)
        let blocks = Layout.patchSectors / block
        let length = 1 + random.below(blocks)
        let first = random.below(Layout.patchCount) * Layout.patchSectors + random.below(blocks - length + 1) * block
        let sectors = first..<first + length * block
        var values = values.next(sectors)
        if isZero { values = values.map { _ in 0 } }
        return SectorWrite(first: first, values: values, isZero: isZero)
    }

    mutating func write(_ id: Int, _ count: Int, isZero: Bool) throws(Breach) {
        guard let file = world.devices[id]?.file else { return }
        let device = try openDevice(id)
        for _ in 0..<count {
            let write = nextWrite(device, isZero: isZero)
            let result = try Deadline.run("writing to device \(id)") {
                write.perform(device, AlignedBuffer(byteCount: Layout.patchSectors * 512))
            }
            guard result == 0 else { throw Breach("writing to device \(id): \(DeviceAccess.text(result))") }
            world.files[file]?.content.write(write.values, at: write.first)
        }
    }

    mutating func flush(_ id: Int) throws(Breach) {
        guard let file = world.devices[id]?.file else { return }
        let device = try openDevice(id)
        let result = try Deadline.run("flushing device \(id)") { device.flush() }
        guard result == 0 else { throw Breach("flushing device \(id): \(DeviceAccess.text(result))") }
        world.files[file]?.content.settle()
    }

    mutating func endWriters() throws(Breach) {
        for id in writers.keys.sorted() { try endWriter(id) }
    }

    /// A write that waited for a server gets its answer from the next one, or an error with the device's end.
    mutating func endWriter(_ id: Int) throws(Breach) {
        guard let writer = writers[id] else { return }
        if world.devices[id]?.isWaiting == true, !writer.hasEnded(within: 0) { return }
        guard writer.hasEnded(within: Deadline.seconds) else { throw Breach("a write to device \(id) is not answered") }
        writers[id] = nil
        guard let file = struckFiles[id] ?? world.devices[id]?.file else { return }
        for (write, result) in writer.outcome {
            if result == 0 {
                world.files[file]?.content.write(write.values, at: write.first)
            } else {
                world.files[file]?.content.mayHaveWritten(write.values, at: write.first)
                if world.devices[id]?.life == .live {
                    throw Breach("a write to device \(id) failed though it was served again: \(DeviceAccess.text(result ?? 0))")
                }
            }
        }
        if holds[id] == nil { world.devices[id]?.isHeld = false }
    }

    mutating func hold(_ id: Int) throws(Breach) { try hold(id, DeviceAccess.path(id), isPartition: false) }

    mutating func hold(_ id: Int, _ path: String, isPartition: Bool) throws(Breach) {
        let descriptor = try Deadline.run("opening \(path)") { open(path, O_RDONLY | O_CLOEXEC) }
        guard descriptor >= 0 else { throw Breach("cannot open \(path)") }
        holds[id] = descriptor
        if isPartition { world.devices[id]?.isPartitionHeld = true } else { world.devices[id]?.isHeld = true }
    }

    mutating func holdPartition(_ id: Int) throws(Breach) {
        let path = DeviceAccess.path(id)
        // The one of before may be there yet: then the kernel says EBUSY.
        let number: Int32 = 1
        let result = try Deadline.run("adding a partition to \(path)") { Partition.add(to: path, number: number) }
        guard result == 0 || result == EBUSY else { throw Breach("adding a partition to \(path): \(DeviceAccess.text(result))") }
        try hold(id, "\(path)p\(number)", isPartition: true)
    }

    mutating func release(_ id: Int) {
        if let descriptor = holds.removeValue(forKey: id) { close(descriptor) }
        world.devices[id]?.isPartitionHeld = false
        world.devices[id]?.isHeld = writers[id] != nil
    }

    func mountPoint(_ file: FileID) -> String { "/mnt/file\(file)" }

    mutating func mount(_ id: Int) throws(Breach) {
        guard let file = world.devices[id]?.file else { return }
        mkdir(mountPoint(file), 0o755)
        if world.files[file]?.content.fileSystem == nil {
            try Store.run(["mkfs.ext4", "-q", "-F", DeviceAccess.path(id), "\(Layout.fileSystemMiB)m"])
            world.files[file]?.content.fileSystem = FileSystem()
        }
        try Store.run(["mount", "-t", "ext4", DeviceAccess.path(id), mountPoint(file)])
        world.devices[id]?.isMounted = true
        try judgeFiles(file)
    }

    mutating func unmount(_ id: Int) throws(Breach) {
        guard let file = world.devices[id]?.file else { return }
        try Store.run(["umount", mountPoint(file)])
        world.devices[id]?.isMounted = false
        world.files[file]?.content.fileSystem?.settle()
    }

    mutating func writeFile(_ id: Int, sync: Bool) throws(Breach) {
        guard let file = world.devices[id]?.file else { return }
        let name = nextFileName
        nextFileName += 1
        let path = "\(mountPoint(file))/\(name)"
        let text = Player.text(ofFile: name)
        let result = try Deadline.run("writing \(path)") { () -> Int32 in
            let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
            guard descriptor >= 0 else { return errno }
            defer { close(descriptor) }
            guard Glibc.write(descriptor, text, text.count) == text.count else { return errno }
            return sync && fsync(descriptor) != 0 ? errno : 0
        }
        guard result == 0 else { throw Breach("writing \(path): \(DeviceAccess.text(result))") }
        world.files[file]?.content.fileSystem?.files[name] = sync ? .synced : .written
    }

    static func text(ofFile name: Int) -> [UInt8] {
        let line = Array("\(name) ".utf8)
        return (0..<16_384).map { line[$0 % line.count] }
    }

    func judgeFiles(_ file: FileID) throws(Breach) {
        let point = mountPoint(file)
        for name in (world.files[file]?.content.fileSystem?.files ?? [:]).keys.sorted() {
            let path = "\(point)/\(name)"
            let content = try Deadline.run("reading \(path)") { SmallFile.bytes(path) }
            guard let content else { throw Breach("\(path) is gone, or cannot be read") }
            guard content == Player.text(ofFile: name) else { throw Breach("\(path) holds something else") }
        }
    }

    /// Devices that are gone in use: who used them goes too.
    mutating func takeLeaveOfUsers(_ old: World) throws(Breach) {
        for (id, device) in old.devices where world.devices[id] == nil {
            if let writer = writers[id] {
                struckFiles[id] = device.file
                guard writer.hasEnded(within: Deadline.seconds) else {
                    throw Breach("a write to device \(id), which is gone, is not answered")
                }
                try endWriter(id)
                struckFiles[id] = nil
            }
            if let descriptor = holds.removeValue(forKey: id) {
                _ = try Deadline.run("closing device \(id)") { close(descriptor) }
            }
            if device.isMounted { try Store.run(["umount", mountPoint(device.file)]) }
        }
    }
}
