import Simulation
import Testing

@testable import qed_ublk_lifecycle

@Suite struct ContentTests {
    @Test("what was acknowledged is what must be read")
    func acknowledged() throws {
        var content = Content([0, 0, 0, 0])
        content.write([11, 12], at: 1)
        try content.read([0, 11, 12, 0], at: 0, from: "the test")
        #expect(throws: Breach.self) { try content.read([0, 11, 0, 0], at: 0, from: "the test") }
        #expect(throws: Breach.self) { try content.read([0, 11, 99, 0], at: 0, from: "the test") }
    }

    @Test("a write that was not answered may be there, and what was read once stays")
    func unanswered() throws {
        var content = Content([0])
        content.mayHaveWritten([5], at: 0)
        var other = content
        try content.read([5], at: 0, from: "the test")
        #expect(throws: Breach.self) { try content.read([0], at: 0, from: "the test") }
        // It may still be on its way.
        try other.read([0], at: 0, from: "the test")
        try other.read([5], at: 0, from: "the test")
    }

    @Test("an accepted loss goes back to the last flush and not before it, and to no other image's data")
    func loss() throws {
        var content = Content([0])
        content.write([1], at: 0)
        content.settle()
        content.write([2], at: 0)
        #expect(throws: Breach.self) { try content.read([1], at: 0, from: "the test") }
        content.lose()
        for value: UInt64 in [0, 7] { #expect(throws: Breach.self) { try content.read([value], at: 0, from: "the test") } }
        try content.read([1], at: 0, from: "the test")
        #expect(throws: Breach.self) { try content.read([2], at: 0, from: "the test") }
    }
}

/// A world with one image, and one device of it.
private func world(_ life: Device.Life = .live, hasLog: Bool = true) -> World {
    var world = World()
    world.files = [1: ImageFile(content: Content([0]), sizeMiB: 64), 2: ImageFile(content: Content([0]), sizeMiB: 64)]
    world.names = ["a": 1, "b": 2]
    world.nextFile = 3
    world.devices[0] = Device(file: 1, name: "a", options: AddOptions(), life: life, sizeMiB: 64)
    world.files[1]?.session = life == .live ? .open(hasLog: hasLog) : .left(hasLog: hasLog)
    return world
}

@Suite struct VerdictTests {
    @Test("a device in use is not removed, one that is not is")
    func del() {
        var used = world()
        #expect(used.verdict(of: .del(0, force: false, .none)) == .succeeds)
        used.devices[0]?.isHeld = true
        #expect(used.verdict(of: .del(0, force: false, .none)) == .busy)
        #expect(used.verdict(of: .del(1, force: false, .none)) == .notFound)
        var dead = world(.dead)
        dead.devices[0]?.isMounted = true
        #expect(dead.verdict(of: .del(0, force: false, .none)) == .succeeds)
        // What its server had answered is not in the image then, and exit status 0 says that it is.
        dead.names["a"] = 2
        #expect(dead.verdict(of: .del(0, force: false, .none)) == .refusesSomehow)
        var silent = world()
        silent.devices[0]?.hasSocket = false
        for force in [false, true] { #expect(silent.verdict(of: .del(0, force: force, .none)) == .busy) }
    }

    @Test("recover needs the image that the device had, where it was")
    func recover() {
        let waiting = world(.waiting(endedWell: false))
        #expect(waiting.verdict(of: .recover(0, inside: false, .none)) == .succeeds)
        var replaced = waiting
        replaced.names["a"] = 2
        #expect(replaced.verdict(of: .recover(0, inside: false, .none)) == .refusesSomehow)
        #expect(replaced.verdict(of: .recoverAll) == .refusesSomehow)
        var grown = waiting
        grown.files[1]?.sizeMiB = 65
        #expect(grown.verdict(of: .recover(0, inside: false, .none)) == .refusesSomehow)
        var forgotten = waiting
        forgotten.devices[0]?.hasRecord = false
        #expect(forgotten.verdict(of: .recover(0, inside: false, .none)) == .refusesSomehow)
        #expect(world().verdict(of: .recover(0, inside: false, .none)) == .busy)
    }

    @Test("no command replaces or changes an image that a device has, or waits for")
    func tools() {
        for life in [Device.Life.live, .waiting(endedWell: false)] {
            #expect(world(life).verdict(of: .create("a", force: true, .none)) == .busy)
        }
        #expect(world().verdict(of: .tool(.grow, "a", .none)) == .busy)
        let waiting = world(.waiting(endedWell: false))
        #expect(waiting.verdict(of: .tool(.grow, "a", .none), isMarked: true) == .refusesSomehow)
        #expect(waiting.verdict(of: .tool(.grow, "b", .none)) == .succeeds)
        // The log is gone, and the header still speaks of it.
        var left = world(.waiting(endedWell: false), hasLog: false)
        left.devices = [:]
        #expect(left.verdict(of: .tool(.grow, "a", .none), isMarked: true) == .refusesSomehow)
    }
}

@Suite struct OutcomeTests {
    @Test("a killed server leaves its device waiting, or dead; a supervised one comes back")
    func kill() throws {
        let waiting = try #require(world().outcomes(of: .kill(0)).first)
        #expect(waiting.devices[0]?.life == .waiting(endedWell: false))
        #expect(waiting.files[1]?.session == .left(hasLog: true))
        var mortal = world()
        mortal.devices[0]?.options.isRecoverable = false
        #expect(mortal.outcomes(of: .kill(0)).first?.devices[0]?.life == .dead)
        var supervised = world()
        supervised.devices[0]?.options.isSupervised = true
        #expect(supervised.outcomes(of: .kill(0)).map { $0.devices[0]?.life } == [.live])
        // Not with another file in the place of its image.
        supervised.names["a"] = 2
        #expect(supervised.outcomes(of: .kill(0)).map { $0.devices[0]?.life } == [.waiting(endedWell: false)])
    }

    @Test("a supervised device that is told to go comes back; one whose supervisor is told to waits, and neither has two of them")
    func supervision() throws {
        var used = world()
        used.devices[0]?.options.isSupervised = true
        used.devices[0]?.isHeld = true
        for step in [Step.terminate(0), .upgrade(0, isSupervised: true)] {
            let after = used.outcomes(of: step)
            #expect(after.map { $0.devices[0]?.life } == [.live] && after[0].devices[0]?.options.isSupervised == true)
        }
        let waiting = try #require(used.outcomes(of: .terminateSupervisor(0)).first)
        #expect(waiting.devices[0]?.life == .waiting(endedWell: true) && waiting.devices[0]?.options.isSupervised == false)
        var seen = Seen(devices: [0: .init(hasServer: true, hasDisk: true, supervisors: 1)], names: ["a": 1, "b": 2])
        #expect(used.difference(from: seen) == nil)
        for count in [0, 2] {
            seen.devices[0]?.supervisors = count
            #expect(used.difference(from: seen) != nil)
        }
        // Until it has given up it may still come.
        seen.devices[0] = .init(hasServer: false, hasDisk: true, supervisors: 1)
        #expect(waiting.difference(from: seen) != nil)
    }

    @Test("a recovery that was cut short promises no log that was gone before")
    func cutRecovery() {
        for hasLog in [false, true] {
            let before = world(.waiting(endedWell: false), hasLog: hasLog)
            let after = before.outcomes(of: .recover(0, inside: false, .none), .cut(status: 2))
            #expect(after.first?.files[1]?.session == .left(hasLog: hasLog))
        }
    }

    @Test("what a command refuses leaves all as it was")
    func refusals() {
        for step in [
            Step.del(0, force: false, .none), .recover(0, inside: false, .none), .create("a", force: true, .none),
            .tool(.compact, "a", .none), .add("a", AddOptions(), .none),
        ] {
            let before = world(.waiting(endedWell: false))
            #expect(before.outcomes(of: step, .exit(3)) == [before])
        }
    }

    @Test("an image is never served under another image's device")
    func foreignDevice() {
        var replaced = world(.waiting(endedWell: false))
        replaced.names["a"] = 2
        #expect(replaced.outcomes(of: .add("a", AddOptions(), .none), .exit(0, device: 0)).isEmpty)
        #expect(replaced.outcomes(of: .add("a", AddOptions(), .none), .exit(0, device: 1)).count == 1)
    }

    @Test("what is seen decides, and nothing else may be seen")
    func seen() {
        let waiting = world(.waiting(endedWell: false))
        var seen = Seen(devices: [0: .init(hasServer: false, hasDisk: true)], names: ["a": 1, "b": 2])
        #expect(waiting.difference(from: seen) == nil)
        #expect(world().difference(from: seen) != nil)
        seen.names["a"] = 2
        #expect(waiting.difference(from: seen) != nil)
        seen = Seen(names: ["a": 1, "b": 2])
        #expect(waiting.difference(from: seen) != nil)
    }

    @Test("list has to show every device, with its state and its server")
    func list() {
        let live = world()
        let right = [0: Listed(state: "live", isReadOnly: false, process: 9)]
        #expect(live.difference(from: right, seen: [0: 9]) == nil)
        #expect(live.difference(from: [:], seen: [0: 9]) != nil)
        #expect(live.difference(from: right, seen: [0: 8]) != nil)
        #expect(world(.waiting(endedWell: false)).difference(from: right, seen: [:]) != nil)
        #expect(World().difference(from: right, seen: [:]) != nil)
    }
}

@Suite struct GeneratorTests {
    /// A program that always does one of the things that the model allows.
    @Test("worlds that come about by what is allowed stay whole, and the same seed makes the same steps", arguments: 1...40)
    func perfectProgram(seed: UInt64) {
        #expect(play(seed: seed) == play(seed: seed))
    }

    private func play(seed: UInt64) -> [Step] {
        var generator = Generator(seed: seed)
        var random = SeededRandom(seed: seed)
        var world = World()
        for name in Generator.names {
            world.files[world.nextFile] = ImageFile(content: Content([0]), sizeMiB: 64, isOverlay: name == "c")
            world.names[name] = world.nextFile
            world.nextFile += 1
        }
        var steps: [Step] = []
        for number in 1...200 {
            let step = generator.step(number, in: world)
            steps.append(step)
            let verdict = world.verdict(of: step)
            let status: Int32 =
                switch verdict {
                case .refuses: 3
                case .either: random.chance(1, in: 2) ? 0 : 3
                default: 0
                }
            let isKilled = random.chance(1, in: 4) && verdict != nil
            let worlds = world.outcomes(of: step, isKilled ? .cut(status: nil) : .exit(status))
            #expect(!worlds.isEmpty, "\(step)")
            world = random.pick(worlds)
            for device in world.devices.values {
                #expect(world.files[device.file] != nil)
                let session = world.files[device.file]?.session
                if device.life == .live && !device.options.isReadOnly {
                    guard case .open = session else {
                        Issue.record("\(step): served, and \(String(describing: session))")
                        continue
                    }
                }
            }
        }
        return steps
    }
}
