import Glibc
import Platform
import Simulation

/// What devices and images hold.
extension Player {
    /// Reads a device, and what is on its file system.
    mutating func judge(_ id: Int) throws(Breach) {
        guard let device = world.devices[id], device.life == .live, writers[id] == nil else { return }
        if let sizeMiB = Kernel.sizeMiB(id), sizeMiB != device.sizeMiB {
            throw Breach("device \(id) has \(sizeMiB) MiB, its image had \(device.sizeMiB)")
        }
        if let isReadOnly = Kernel.isReadOnly(id), isReadOnly != device.options.isReadOnly {
            throw Breach("device \(id) is\(isReadOnly ? "" : " not") read-only")
        }
        let values = try DeviceAccess.readAll(id)
        try read(values, device.file, from: "device \(id)")
        if device.isMounted { try judgeFiles(device.file) }
    }

    mutating func read(_ values: [UInt64], _ file: FileID, from source: String) throws(Breach) {
        guard var content = world.files[file]?.content else { return }
        try content.read(values, at: 0, from: "\(source), of file \(file)")
        world.files[file]?.content = content
    }

    /// An image that nobody serves read-write, as QEMU has it, or a conversion.
    mutating func examine(_ name: String) throws(Breach) {
        guard let id = world.names[name], let file = world.files[id] else { return }
        let raw = "/tmp/examined.raw"
        defer { unlink(raw) }
        if file.session == .closed && !file.isCopy && !world.devices.values.contains(where: { $0.file == id }) {
            let check = try Subprocess(["qemu-img", "check", "-f", "qed", Store.path(name)])
            let end = check.wait(seconds: Deadline.seconds)
            let said = check.takeOutput()
            guard end == .exit(0) || end == .exit(3) else {
                throw Breach("qemu-img check \(name): \(end): \(said.output)\(said.errors)")
            }
            if random.chance(1, in: 2) {
                try Store.run(["qemu-img", "convert", "-f", "qed", "-O", "raw", Store.path(name), raw])
                try read(try DeviceAccess.readRaw(raw), id, from: "\(name), for QEMU")
                return
            }
        }
        // Whoever cannot tell all that was acknowledged has to say so.
        let (end, said) = try run(["convert", "-O", "raw", Store.path(name), raw], directory: "/", .none)
        note("   convert \(name): \(end) \(said.errors)")
        if file.session == .closed && !file.isCopy && end != .exit(0) { throw Breach("convert \(name): \(end): \(said.errors)") }
        guard end != .late else { throw Breach("convert \(name) has not ended") }
        guard end == .exit(0) else { return }
        // What a copy holds, or one without its log, is nobody's promise.
        if file.session == .left(hasLog: false) || file.isCopy { return }
        try read(try DeviceAccess.readRaw(raw), id, from: "\(name), converted")
    }
}
