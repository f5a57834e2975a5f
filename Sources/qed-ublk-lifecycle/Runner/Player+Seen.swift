import BlockStorage
import CSupport
import DeviceServer
import Glibc
import Platform

/// What there is after a step, and that list shows it.
extension Player {
    /// - Parameter newest: the device that a process which was not there before supervises, where that is not its child's yet.
    mutating func seen(newest: Int? = nil) -> Seen {
        var seen = Seen()
        let processes = Kernel.servers()
        findSupervisors(among: processes, newest)
        for id in Kernel.devices() {
            seen.devices[id] = Seen.Device(
                hasServer: processes.contains { $0.devices.contains(id) }, hasDisk: Kernel.hasDisk(id),
                supervisors: supervisors.values.count { $0 == id })
        }
        for name in Generator.names + Generator.names.map({ "\($0).aside" }) {
            guard let stored = StoredImage(Store.path(name)) else { continue }
            seen.names[name] = fileIDs[stored.identity] ?? world.nextFile
            seen.sizesMiB[name] = stored.sizeMiB
        }
        return seen
    }

    /// Whoever supervises from now on, or does not any more.
    private mutating func findSupervisors(among processes: [Kernel.Process], _ newest: Int?) {
        let supervising = processes.filter { $0.role == "supervise" }
        supervisors = supervisors.filter { known in supervising.contains { $0.id == known.key } }
        for process in supervising {
            let child = processes.first { $0.parent == process.id && !$0.devices.isEmpty }
            if let id = child?.devices.first ?? (supervisors[process.id] == nil ? newest : nil) { supervisors[process.id] = id }
        }
    }

    func server(_ id: Int) -> Kernel.Process? {
        Kernel.servers().first { $0.devices.contains(id) && $0.role == "serve" }
    }

    /// Waits until what is seen is one of the worlds that there may be, and takes that one.
    mutating func settle(after step: Step, _ ending: Ending = .exit(0)) throws(Breach) {
        let end = ContinuousClock.now + .seconds(Deadline.seconds)
        // What was interrupted may look like an end before it has come to one.
        let calmSeconds = ending.isCut ? calmSeconds(after: step) : 0
        var calm: (world: World, since: ContinuousClock.Instant)?
        var differences: [String] = []
        while true {
            var ending = ending
            if ending.isCut, ending.device == nil, let new = Kernel.devices().first(where: { world.devices[$0] == nil }) {
                ending = .cut(status: ending.status, device: new)
            }
            let now = seen(newest: ending.device ?? step.device)
            let worlds = world.outcomes(of: step, ending)
            if worlds.isEmpty { throw Breach("it serves another image's device") }
            differences = []
            var found: World?
            for possible in worlds {
                guard let difference = possible.difference(from: now) else {
                    found = possible
                    break
                }
                differences.append(difference)
            }
            if let found {
                if calm?.world != found { calm = (found, ContinuousClock.now) }
                if let calm, ContinuousClock.now - calm.since >= .seconds(calmSeconds) {
                    try take(found)
                    return
                }
            } else {
                calm = nil
            }
            guard ContinuousClock.now < end else {
                throw Breach("nothing that may be has come about: \(Set(differences).sorted().joined(separator: "; or "))")
            }
            cs_sleep_milliseconds(20)
        }
    }

    private func calmSeconds(after step: Step) -> Double {
        // A server that was asked to remove a disk in use tries for two seconds, whether the asker still waits or not.
        if case .del(let id, _, _) = step, let device = world.devices[id], device.life == .live, device.isUsed { return 6 }
        return 1.2
    }

    mutating func take(_ found: World) throws(Breach) {
        for (name, file) in found.names where world.names[name] != file {
            if let stored = StoredImage(Store.path(name)) { fileIDs[stored.identity] = file }
        }
        world = found
        nonces = nonces.filter { world.devices[$0.key] != nil }
        for id in world.devices.keys {
            if nonces[id] == nil { nonces[id] = nonce(id) }
            // Those whose server did not come to it have none; one that leaves writes it again.
            let hasOwnRecord = hasRecord(id)
            world.devices[id]?.hasRecord = hasOwnRecord
        }
        try compareList()
    }

    /// What `list` says is what there is.
    mutating func compareList() throws(Breach) {
        let (end, said) = try run(["list", "--json"], directory: "/", .none)
        guard end == .exit(0) else { throw Breach("list --json: \(end): \(said.errors)") }
        guard case .array(let entries)? = JSONValue(parsing: said.output) else { throw Breach("list --json says \(said.output)") }
        var listed: [Int: Listed] = [:]
        for entry in entries {
            guard let id = entry["id"]?.integer(as: Int.self) else { throw Breach("list --json without an id: \(said.output)") }
            listed[id] = Listed(
                state: entry["state"]?.text ?? "", isReadOnly: entry["read-only"]?.truth,
                process: entry["pid"]?.integer(as: Int.self), image: entry["image"]?.text)
        }
        var processes: [Int: Int] = [:]
        for process in Kernel.servers() { for id in process.devices { processes[id] = process.id } }
        if let difference = world.difference(from: listed, seen: processes) { throw Breach("\(difference): \(said.output)") }
    }
}
