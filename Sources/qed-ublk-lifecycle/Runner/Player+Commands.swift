import BlockStorage
import CSupport
import Glibc
import Platform

/// Commands of the program: what they say and what comes of them.
extension Player {
    func arguments(of step: Step) -> [String] {
        switch step {
        case .add(let name, let options, _): ["add"] + options.arguments + [Store.path(name)]
        case .del(let id, let force, _): ["del"] + (force ? ["--force", "--timeout", "5"] : []) + ["\(id)"]
        case .recover(let id, _, let isSupervised, _): ["recover"] + (isSupervised ? [] : ["--no-supervise"]) + ["\(id)"]
        case .recoverAll: ["recover", "--no-supervise", "--all"]
        case .create(let name, let force, _): ["create"] + (force ? ["--force"] : []) + [Store.path(name), "\(Layout.sizeMiB)M"]
        case .tool(.grow, let name, _): ["resize", Store.path(name), "+1M"]
        case .tool(.repair, let name, _): ["check", "-r", "leaks", Store.path(name)]
        case .tool(.compact, let name, _): ["compact", Store.path(name)]
        case .tool(.commit, let name, _): ["commit", Store.path(name)]
        default: []
        }
    }

    /// The image that a command is about.
    func path(of step: Step) -> String? {
        switch step {
        case .add(let name, _, _), .create(let name, _, _), .tool(_, let name, _): Store.path(name)
        case .recover(let id, _, _, _): world.devices[id].map { Store.path($0.name) }
        default: nil
        }
    }

    mutating func performCommand(_ step: Step, _ interruption: Interruption) throws(Breach) {
        let image = path(of: step)
        let isMarked = image.flatMap(StoredImage.init)?.isMarked ?? false
        guard let verdict = world.verdict(of: step, isMarked: isMarked) else { preconditionFailure("\(step) is no command") }
        // What is refused leaves the file as it was. One that is being served changes by itself.
        let served = Set(world.liveDevices.compactMap { world.devices[$0]?.file })
        var before: UInt64?
        if case .refuses = verdict, interruption == .none, let image, let file = fileID(image), !served.contains(file) {
            before = StoredImage.fingerprint(image)
        }
        var directory = "/"
        if case .recover(let id, true, _, _) = step, let file = world.devices[id]?.file { directory = mountPoint(file) }
        let words = arguments(of: step)
        let (end, said) = try run(words, directory: directory, interruption)
        note(
            "   \(end)\(said.output.isEmpty ? "" : ": \(said.output.split(separator: "\n").joined(separator: " "))")"
                + "\(said.errors.isEmpty ? "" : ": \(said.errors.split(separator: "\n").joined(separator: " | "))")")
        let device = said.output.hasPrefix("/dev/ublkb") ? Int(said.output.dropFirst(10).prefix { $0.isNumber }) : nil
        let ending: Ending
        switch end {
        case .late: throw Breach("\(words.joined(separator: " ")) has not ended within \(Int(Deadline.seconds)) seconds")
        case .signal(let signal):
            guard case .command = interruption else { throw Breach("\(words.joined(separator: " ")) died of signal \(signal)") }
            ending = .cut(status: nil, device: device)
        case .exit(let status):
            if interruption == .none || { if case .command = interruption { true } else { false } }() {
                guard verdict.allows(status) else {
                    throw Breach("\(words.joined(separator: " ")) ended with status \(status), and should have: \(verdict)")
                }
                ending = .exit(status, device: device)
            } else {
                // A server that is killed is no reason to do what must be refused.
                if case .refuses = verdict, status == 0 {
                    throw Breach("\(words.joined(separator: " ")) should have been refused")
                }
                ending = .cut(status: status, device: device)
            }
            if status != 0 {
                for line in said.errors.split(separator: "\n") where !line.hasPrefix("qed-ublk: ") {
                    throw Breach("\(words.joined(separator: " ")) says '\(line)', not a sentence of its own")
                }
                guard !said.errors.isEmpty else { throw Breach("\(words.joined(separator: " ")) fails without a word") }
                if let before, let image, StoredImage.fingerprint(image) != before {
                    throw Breach("\(words.joined(separator: " ")) was refused, and has changed the image")
                }
            }
        }
        let old = world
        try settle(after: step, ending)
        try takeLeaveOfUsers(old)
        for (id, device) in world.devices where device.life == .live && old.devices[id]?.life != .live {
            try endWriter(id)
            try judge(id)
        }
        if case .del = step, ending.status == 0 {
            for (id, device) in old.devices where world.devices[id] == nil {
                if let name = world.names.first(where: { $0.value == device.file })?.key { try examine(name) }
            }
        }
        if case .tool(_, let name, _) = step, ending.status == 0 || ending.isCut { try examine(name) }
    }

    func fileID(_ path: String) -> FileID? { StoredImage(path).flatMap { fileIDs[$0.identity] } }

    func run(
        _ words: [String], directory: String, _ interruption: Interruption
    ) throws(Breach) -> (Subprocess.End, (output: String, errors: String)) {
        let known = Set(Kernel.servers().map(\.id))
        let process = try Subprocess([program] + words, directory: directory)
        switch interruption {
        case .none: break
        case .command(let milliseconds):
            cs_sleep_milliseconds(UInt32(milliseconds))
            Glibc.kill(process.process, SIGKILL)
        case .server(let milliseconds):
            // Of a command that starts none, the one that is there.
            let end = ContinuousClock.now + .seconds(2)
            var victim = words.first == "del" ? Int(words.last ?? "").flatMap(server)?.id : nil
            while victim == nil, ContinuousClock.now < end, Kernel.isThere(Int(process.process)) {
                victim = Kernel.servers().first { !known.contains($0.id) && $0.role == "serve" }?.id
                if victim == nil, waitpidHasEnded(process.process) { break }
            }
            cs_sleep_milliseconds(UInt32(milliseconds))
            if let victim { Glibc.kill(Int32(victim), SIGKILL) }
        }
        let end = process.wait(seconds: Deadline.seconds)
        return (end, process.takeOutput())
    }

    /// Without waiting for it.
    func waitpidHasEnded(_ process: Int32) -> Bool { !Kernel.isThere(Int(process)) }
}
