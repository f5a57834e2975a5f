import CSupport
import Glibc
import Platform
import Simulation

/// What is done to servers.
extension Player {
    mutating func kill(_ id: Int, _ step: Step) throws(Breach) {
        guard let process = server(id) else { throw Breach("device \(id) has no server") }
        if case .killSupervisor = step {
            guard let supervisor = supervisor(id) else { throw Breach("device \(id) has no supervisor") }
            Glibc.kill(Int32(supervisor), SIGKILL)
            try waitForEnd(of: supervisor)
        }
        Glibc.kill(Int32(process.id), SIGKILL)
        var ending = Ending.exit(0)
        if case .killSupervisorLater(_, let milliseconds) = step, let supervisor = supervisor(id) {
            cs_sleep_milliseconds(UInt32(milliseconds))
            Glibc.kill(Int32(supervisor), SIGKILL)
            try waitForEnd(of: supervisor)
            // What it has started goes on for a while.
            ending = .cut(status: nil)
        }
        try waitForEnd(of: process.id)
        try settle(after: step, ending)
        try endWriter(id)
        try judge(id)
    }

    func supervisor(_ id: Int) -> Int? { supervisors.first { $0.value == id }?.key }

    func waitForEnd(of process: Int) throws(Breach) {
        let end = ContinuousClock.now + .seconds(Deadline.seconds)
        while Kernel.isThere(process) {
            guard ContinuousClock.now < end else { throw Breach("process \(process) does not end") }
            cs_sleep_milliseconds(2)
        }
    }

    mutating func terminate(_ id: Int, _ step: Step) throws(Breach) {
        guard let process = server(id) else { throw Breach("device \(id) has no server") }
        if case .terminateSupervisor = step {
            guard let supervisor = supervisor(id) else { throw Breach("device \(id) has no supervisor") }
            Glibc.kill(Int32(supervisor), SIGTERM)
        } else {
            Glibc.kill(Int32(process.id), SIGTERM)
        }
        let old = world
        // One that may stay need not end.
        if world.devices[id]?.options.isRecoverable == true {
            try waitForEnd(of: process.id)
        } else {
            cs_sleep_milliseconds(1000)
        }
        try settle(after: step)
        try takeLeaveOfUsers(old)
        if world.devices[id] == nil, let file = old.devices[id]?.file,
            let name = world.names.first(where: { $0.value == file })?.key
        {
            try examine(name)
        }
    }

    /// What the documentation says of a later version: the server ends, and another one comes.
    mutating func upgrade(_ id: Int, isSupervised: Bool, _ step: Step) throws(Breach) {
        guard let process = server(id) else { throw Breach("device \(id) has no server") }
        Glibc.kill(Int32(process.id), SIGTERM)
        // Nothing has come between: it is told to end by now, or has ended.
        let (end, said) = try run(["recover"] + (isSupervised ? [] : ["--no-supervise"]) + ["\(id)"], directory: "/", .none)
        note("   \(end): \(said.output)\(said.errors)")
        guard case .exit(let status) = end else { throw Breach("recover \(id): \(end)") }
        let left = world.left(id)
        if status != 0, let device = world.devices[id], device.hasRecord, device.hasSocket, left.verdictOfRecover(id) == .succeeds
        {
            throw Breach("recover \(id), after a SIGTERM to its server, ended with status \(status)")
        }
        try waitForEnd(of: process.id)
        try settle(after: step, .exit(status))
        try judge(id)
    }

    mutating func pause(_ id: Int, _ milliseconds: Int) throws(Breach) {
        guard let process = server(id) else { throw Breach("device \(id) has no server") }
        Glibc.kill(Int32(process.id), SIGSTOP)
        defer { Glibc.kill(Int32(process.id), SIGCONT) }
        cs_sleep_milliseconds(UInt32(milliseconds))
        try compareList()
    }

    mutating func strike(_ id: Int, _ milliseconds: Int, _ step: Step) throws(Breach) {
        guard let process = server(id) else { throw Breach("device \(id) has no server") }
        let device = try openDevice(id)
        let writes = (0..<2000).map { _ in nextWrite(device, isZero: random.chance(1, in: 10)) }
        let writer = Writer(device, writes)
        cs_sleep_milliseconds(UInt32(milliseconds))
        Glibc.kill(Int32(process.id), SIGKILL)
        writer.stop()
        try waitForEnd(of: process.id)
        writers[id] = writer
        // The last write may have been answered: then nothing has the device open any more.
        if !writer.hasEnded(within: 1) { world.devices[id]?.isHeld = true }
        try settle(after: step)
        try endWriter(id)
        try judge(id)
    }
}
