import CSupport
import Glibc
import Simulation

/// What is done to servers.
extension Player {
    mutating func kill(_ id: Int, _ step: Step) throws(Breach) {
        guard let process = server(id) else { throw Breach("device \(id) has no server") }
        if case .killSupervisor = step, Kernel.servers().contains(where: { $0.id == process.parent && $0.role == "supervise" }) {
            Glibc.kill(Int32(process.parent), SIGKILL)
        }
        Glibc.kill(Int32(process.id), SIGKILL)
        try waitForEnd(of: process.id)
        try settle(after: step)
        try endWriter(id)
        try judge(id)
    }

    func waitForEnd(of process: Int) throws(Breach) {
        let end = ContinuousClock.now + .seconds(Deadline.seconds)
        while Kernel.isThere(process) {
            guard ContinuousClock.now < end else { throw Breach("process \(process) does not end") }
            cs_sleep_milliseconds(2)
        }
    }

    mutating func terminate(_ id: Int, _ step: Step) throws(Breach) {
        guard let process = server(id) else { throw Breach("device \(id) has no server") }
        Glibc.kill(Int32(process.id), SIGTERM)
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
        world.devices[id]?.isHeld = true
        try settle(after: step)
        try endWriter(id)
        try judge(id)
    }
}
