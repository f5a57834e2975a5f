import BlockStorage
import DeviceServer
import Glibc
import Platform

/// What is done to images and the runtime directory.
extension Player {
    mutating func replace(_ name: String, by other: String) throws(Breach) {
        try rename(name, "\(name).aside")
        try rename(other, name)
        world.names["\(name).aside"] = world.names[name]
        world.names[name] = world.names[other]
        world.names[other] = nil
        world.aside[name] = other
    }

    mutating func copyOver(_ name: String) throws(Breach) {
        guard let id = world.names[name], var file = world.files[id] else { return }
        try rename(name, "\(name).aside")
        try Store.run(["cp", "--sparse=always", Store.path("\(name).aside"), Store.path(name)])
        guard let stored = StoredImage(Store.path(name)) else { throw Breach("the copy of \(name) is gone") }
        // Whatever was under way is not known to be in it.
        if file.session != .closed {
            file.isCopy = true
            file.content.lose()
        }
        file.session = .closed
        world.names["\(name).aside"] = id
        world.names[name] = world.nextFile
        world.files[world.nextFile] = file
        fileIDs[stored.identity] = world.nextFile
        world.nextFile += 1
        world.aside[name] = ""
    }

    mutating func putBack(_ name: String) throws(Breach) {
        guard let other = world.aside[name] else { return }
        if world.names[name] != nil {
            if other.isEmpty || world.names[other] != nil {
                unlink(Store.path(name))
            } else {
                try rename(name, other)
                world.names[other] = world.names[name]
            }
        }
        try rename("\(name).aside", name)
        world.names[name] = world.names["\(name).aside"]
        world.names["\(name).aside"] = nil
        world.aside[name] = nil
    }

    func rename(_ old: String, _ new: String) throws(Breach) {
        guard Glibc.rename(Store.path(old), Store.path(new)) == 0 else { throw Breach("cannot rename \(old): errno \(errno)") }
    }

    mutating func wipe(_ wiped: Wiped) {
        switch wiped {
        case .everything:
            for name in names(in: runtime) where name != "filler" { unlink("\(runtime)/\(name)") }
            world.wipeEverything()
        case .record(let id):
            unlink("\(runtime)/ublk\(id).json")
            world.devices[id]?.hasRecord = false
        case .socket(let id):
            unlink("\(runtime)/ublk\(id).sock")
            world.devices[id]?.hasSocket = false
        case .logs:
            for name in names(in: runtime) where name.hasPrefix("image-") { unlink("\(runtime)/\(name)") }
            world.wipeLogs()
        }
    }

    func pathOfRecord(_ id: Int) -> String { "\(runtime)/ublk\(id).json" }

    mutating func copyRecords() {
        copies = [:]
        for id in world.devices.keys where hasRecord(id) { copies[id] = SmallFile.bytes(pathOfRecord(id)) }
        world.hasCopies = true
    }

    /// Those of devices that are gone, too.
    mutating func putRecordsBack() throws(Breach) {
        for (id, copy) in copies {
            let isSame = SmallFile.bytes(pathOfRecord(id)) == copy
            try write(copy, to: pathOfRecord(id))
            guard world.devices[id] != nil, !isSame else { continue }
            let isOfThisDevice = hasRecord(id)
            world.devices[id]?.hasRecord = isOfThisDevice
            world.devices[id]?.isRecordOld = true
        }
        world.hasCopies = false
        try compareList()
    }

    private func write(_ bytes: [UInt8], to path: String) throws(Breach) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        defer { close(descriptor) }
        guard descriptor >= 0, Glibc.write(descriptor, bytes, bytes.count) == bytes.count else {
            throw Breach("cannot write \(path)")
        }
    }

    /// Whether there is a record of this device, and not of one that had its number before.
    func hasRecord(_ id: Int) -> Bool {
        guard let nonce = nonce(id) else { return false }
        return nonces[id] == nil || nonces[id] == nonce
    }

    func nonce(_ id: Int) -> UInt64? {
        SmallFile.text(pathOfRecord(id)).flatMap { JSONValue(parsing: $0) }.flatMap {
            $0["device_nonce"]?.integer(as: UInt64.self)
        }
    }

    mutating func fillRuntime() {
        let descriptor = open("\(runtime)/filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let zeros = [UInt8](repeating: 1, count: 65_536)
        while Glibc.write(descriptor, zeros, zeros.count) > 0 {}
        world.runtimeIsFull = true
    }
}
