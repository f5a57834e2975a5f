import Simulation

/// Chooses what happens next, among what can.
///
/// Each step is chosen by the seed, its number and the world: a world that comes about otherwise, because a command was
/// quicker, does not change the numbers of the steps after it.
struct Generator {
    let seed: UInt64
    /// Steps whose descriptions contain one of these are not chosen.
    var without: [String] = []

    private var choices: [(weight: Int, step: Step)] = []
    private var random = SeededRandom(seed: 0)

    init(seed: UInt64) { self.seed = seed }

    mutating func step(_ number: Int, in world: World) -> Step {
        random = SeededRandom(seed: seed &* 1_000_003 &+ UInt64(number))
        choices = []
        for name in world.names.keys.sorted() where !name.contains(".") { choicesOfImage(name, world) }
        for name in Generator.names where world.names[name] == nil {
            if world.aside[name] == nil { offer(4, .create(name, force: false, interruption(1))) }
            offer(1, .add(name, AddOptions(), .none))
        }
        for (id, device) in world.devices.sorted(by: { $0.key < $1.key }) {
            switch device.life {
            case .live: choicesOfLive(id, device, world)
            case .waiting: choicesOfWaiting(id, device)
            case .dead: offer(10, .del(id, force: random.chance(1, in: 3), .none))
            }
        }
        choicesOfAll(world)
        return chosen()
    }

    static let names = ["a", "b", "c"]

    private func isAllowed(_ step: Step) -> Bool {
        without.isEmpty || !without.contains { step.description.contains($0) }
    }

    private mutating func offer(_ weight: Int, _ step: Step) { choices.append((weight, step)) }

    private mutating func chosen() -> Step {
        let choices = choices.filter { isAllowed($0.step) }
        var left = random.below(choices.reduce(0) { $0 + $1.weight })
        for (weight, step) in choices {
            if left < weight { return step }
            left -= weight
        }
        preconditionFailure("the weights are those that were added")
    }

    private mutating func milliseconds(_ most: Int) -> Int {
        random.chance(1, in: 3) ? random.below(20) : random.below(most)
    }

    /// - Parameter likelihood: in eighths.
    private mutating func interruption(_ likelihood: Int) -> Interruption {
        guard random.chance(likelihood, in: 8) else { return .none }
        return random.chance(1, in: 2) ? .command(milliseconds: milliseconds(500)) : .server(milliseconds: milliseconds(400))
    }

    private mutating func options() -> AddOptions {
        var options = AddOptions(queues: 1 + random.below(2))
        switch random.below(10) {
        case 0, 1: options.isReadOnly = true
        case 2, 3: options.isSupervised = true
        case 4: options.isRecoverable = false
        default: break
        }
        if random.chance(1, in: 4) { options.zeroCopy = "off" }
        return options
    }

    private mutating func choicesOfImage(_ name: String, _ world: World) {
        guard let id = world.names[name] else { return }
        let devices = world.devices.sorted { $0.key < $1.key }.map(\.value).filter { $0.file == id }
        if world.devices.count < 3 {
            offer(devices.isEmpty ? 24 : 2, .add(name, options(), interruption(devices.isEmpty ? 2 : 1)))
            if let device = devices.first { offer(2, .add(name, device.options, .none)) }
        }
        offer(1, .create(name, force: false, .none))
        offer(devices.isEmpty ? 1 : 2, .create(name, force: true, interruption(1)))
        for tool in Tool.allCases { offer(1, .tool(tool, name, interruption(devices.isEmpty ? 2 : 0))) }
        if !devices.contains(where: { $0.life == .live && !$0.options.isReadOnly }) { offer(3, .examine(name)) }
        // Something else gets its name.
        guard world.aside[name] == nil else {
            let intruderIsUsed = world.devices.values.contains { $0.file == id }
            if world.aside[name] != "" || !intruderIsUsed { offer(8, .putBack(name)) }
            return
        }
        let weight = devices.contains { $0.isWaiting } ? 4 : 1
        for other in Generator.names where other != name && world.names[other] != nil && world.aside[other] == nil {
            offer(weight, .replace(name, by: other))
        }
        offer(weight, .copyOver(name))
    }

    private mutating func choicesOfLive(_ id: Int, _ device: Device, _ world: World) {
        if !device.options.isReadOnly {
            offer(20, .write(id, count: 1 + random.below(24)))
            offer(3, .zero(id, count: 1 + random.below(6)))
            offer(4, .flush(id))
            offer(8, .strike(id, milliseconds: milliseconds(300)))
            if device.isMounted {
                offer(14, .writeFile(id, sync: random.chance(1, in: 2)))
            } else if !device.isPartitionHeld {
                offer(6, .mount(id))
            }
        }
        offer(4, .read(id))
        if !device.isHeld && !device.isPartitionHeld { offer(3, .hold(id)) }
        if !device.isMounted && !device.isPartitionHeld && !device.isHeld { offer(2, .holdPartition(id)) }
        if device.isHeld || device.isPartitionHeld { offer(8, .release(id)) }
        if device.isMounted { offer(6, .unmount(id)) }
        offer(8, .del(id, force: false, interruption(2)))
        offer(3, .del(id, force: true, interruption(1)))
        offer(1, .recover(id, inside: false, .none))
        offer(6, .kill(id))
        if device.options.isSupervised {
            offer(6, .killSupervisor(id))
            offer(4, .killSupervisorLater(id, milliseconds: milliseconds(500)))
            offer(3, .terminateSupervisor(id))
            if device.isUsed { offer(8, .upgrade(id, isSupervised: random.chance(1, in: 2))) }
        }
        offer(4, .terminate(id))
        offer(2, .pause(id, milliseconds: 100 + random.below(1500)))
        offer(1, .wipe(.record(id)))
        offer(1, .wipe(.socket(id)))
    }

    private mutating func choicesOfWaiting(_ id: Int, _ device: Device) {
        let isInside = device.isMounted && random.chance(1, in: 2)
        offer(24, .recover(id, inside: isInside, isSupervised: random.chance(1, in: 4), interruption(3)))
        offer(4, .recoverAll)
        offer(4, .del(id, force: false, interruption(2)))
        offer(3, .del(id, force: true, interruption(2)))
        offer(1, .wipe(.record(id)))
        if device.isHeld || device.isPartitionHeld { offer(2, .release(id)) }
    }

    private mutating func choicesOfAll(_ world: World) {
        offer(1, .wipe(.everything))
        if !world.hasCopies { offer(6, .copyRecords) } else if !world.runtimeIsFull { offer(6, .putRecordsBack) }
        offer(1, .wipe(.logs))
        if world.runtimeIsFull { offer(10, .freeRuntime) } else { offer(1, .fillRuntime) }
        if world.liveDevices.isEmpty {
            offer(world.waitingDevices.isEmpty ? 2 : 8, .remount(otherFirst: random.chance(2, in: 3)))
        }
        offer(1, .recoverAll)
        offer(1, .recover(7, inside: false, .none))
        offer(1, .del(7, force: false, .none))
    }
}
