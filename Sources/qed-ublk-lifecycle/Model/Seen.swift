/// What there is after a step, as the kernel, /proc and the files tell it, and nothing of the program that is tested.
struct Seen: Equatable {
    struct Device: Equatable {
        /// A process has the device's character device open.
        var hasServer: Bool
        /// There is a disk.
        var hasDisk: Bool
        /// Processes that give it the next server.
        var supervisors = 0
    }

    var devices: [Int: Device] = [:]
    /// Which file each name is of; a file that is new has the next number.
    var names: [String: FileID] = [:]
    var sizesMiB: [String: Int] = [:]
}

/// A device as `list` shows it.
struct Listed: Equatable {
    var state: String
    var isReadOnly: Bool?
    var process: Int?
    var image: String?
}

extension World {
    /// - Returns: what differs; nil where it can be this world that was seen.
    func difference(from seen: Seen) -> String? {
        for id in Set(devices.keys).union(seen.devices.keys).sorted() {
            guard let device = devices[id] else { return "device \(id) is there, and should be gone" }
            guard let there = seen.devices[id] else { return "device \(id) is gone, and should be \(device.life)" }
            if there.hasServer != (device.life == .live) {
                return "device \(id) has \(there.hasServer ? "a" : "no") server, and should be \(device.life)"
            }
            if device.life != .dead && !there.hasDisk { return "device \(id) has no disk, and should be \(device.life)" }
            if there.supervisors != (device.options.isSupervised ? 1 : 0) {
                let right = device.options.isSupervised ? "one" : "none"
                return "device \(id) has \(there.supervisors) supervisors, and should have \(right)"
            }
        }
        for (name, file) in names where seen.names[name] != file {
            return "\(name) is \(seen.names[name].map { "file \($0)" } ?? "gone"), and should be file \(file)"
        }
        for name in seen.names.keys where names[name] == nil { return "there is \(name), and should be none" }
        for (name, sizeMiB) in seen.sizesMiB {
            guard let id = names[name], let file = files[id], file.sizeMiB != sizeMiB else { continue }
            return "\(name) has \(sizeMiB) MiB, and should have \(file.sizeMiB)"
        }
        return nil
    }

    /// - Returns: what `list` gets wrong; nil where it is right.
    func difference(from listed: [Int: Listed], seen: [Int: Int]) -> String? {
        for id in Set(devices.keys).union(listed.keys).sorted() {
            guard let device = devices[id] else { return "list shows device \(id), which is gone" }
            // Without a record a served device could be another program's.
            if device.life == .live && !device.hasRecord && listed[id] == nil { continue }
            guard let entry = listed[id] else { return "list does not show device \(id)" }
            guard device.hasRecord, !device.isRecordOld else { continue }
            let right =
                switch device.life {
                case .live: ["live"]
                case .waiting: ["waiting"]
                // Of one whose removal has begun it depends on when.
                case .dead: ["dead", "waiting"]
                }
            guard right.contains(entry.state) else {
                return "list says that device \(id) is \(entry.state), and it is \(device.life)"
            }
            if entry.isReadOnly != device.options.isReadOnly { return "list has read-only wrong for device \(id)" }
            if device.life == .live, entry.process != seen[id] {
                return "list names process \(entry.process ?? 0) for device \(id), whose server is \(seen[id] ?? 0)"
            }
        }
        return nil
    }
}
