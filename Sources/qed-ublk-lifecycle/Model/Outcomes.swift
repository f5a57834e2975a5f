/// How a command ended.
enum Ending: Equatable {
    /// - Parameter device: the number that it printed.
    case exit(Int32, device: Int? = nil)
    /// It was killed, or its server was and it may say what it likes.
    case cut(status: Int32?, device: Int? = nil)

    var status: Int32? {
        switch self {
        case .exit(let status, _): status
        case .cut(let status, _): status
        }
    }

    var device: Int? {
        switch self {
        case .exit(_, let device): device
        case .cut(_, let device): device
        }
    }

    var isCut: Bool { if case .cut = self { true } else { false } }
}

extension World {
    /// The worlds that there may be after a command that ended so, or after something else that is done to devices. What
    /// is seen afterwards decides; of two that look alike the first counts, which promises less.
    func outcomes(of step: Step, _ ending: Ending = .exit(0)) -> [World] {
        switch step {
        case .add(let name, let options, let interruption): outcomesOfAdd(name, options, interruption, ending)
        case .del(let id, let force, let interruption): outcomesOfDel(id, force: force, interruption, ending)
        case .recover(let id, _, let isSupervised, _): outcomesOfRecover(id, isSupervised: isSupervised, ending)
        case .recoverAll: outcomesOfRecoverAll(ending)
        case .create(let name, let force, _): outcomesOfCreate(name, force: force, ending)
        case .tool(let tool, let name, _): outcomes(of: tool, name, ending)
        case .kill(let id), .strike(let id, _): outcomesOfKill(id, withSupervisor: false)
        case .killSupervisor(let id): outcomesOfKill(id, withSupervisor: true)
        case .killSupervisorLater(let id, _):
            // The last one that it has started comes to its end, well or not.
            outcomesOfKill(id, withSupervisor: true)
                + outcomesOfKill(id, withSupervisor: false).map { world in
                    var world = world
                    world.devices[id]?.options.isSupervised = false
                    return world
                }
        case .terminate(let id): outcomesOfTerminate(id, withSupervisor: false)
        case .terminateSupervisor(let id): outcomesOfTerminate(id, withSupervisor: true)
        case .upgrade(let id, _): outcomesOfUpgrade(id, ending)
        default: [self]
        }
    }

    private func outcomesOfAdd(
        _ name: String, _ options: AddOptions, _ interruption: Interruption, _ ending: Ending
    ) -> [World] {
        guard let file = names[name] else { return [self] }
        if ending.status != 0, case .refuses = verdictOfAdd(name, options) { return [self] }
        // Where no number was printed it is any.
        let free = (0...devices.count).first { devices[$0] == nil } ?? devices.count
        let waiting = devices(addedAs: name).filter { devices[$0]?.file == file && devices[$0]?.isWaiting == true }
        let numbers = ending.device.map { [$0] } ?? [free] + waiting
        var served: [World] = []
        for number in numbers { served += worldServing(file, name, number, options) }
        if case .exit(let status, _) = ending { return status == 0 ? served : [self] }
        // Somebody was killed. Its server may live on, be dead, or have taken everything away.
        let interrupted = served.flatMap { world -> [World] in
            guard let number = numbers.first(where: { world.devices[$0]?.life == .live }) else { return [] }
            let killed =
                world.outcomesOfKill(number, withSupervisor: false) + world.outcomesOfKill(number, withSupervisor: true)
                + world.withoutRecord(number)
            return [world] + killed.map { $0.perhapsInScan(number) }
        }
        return ending.status == 0 ? interrupted : [self] + interrupted
    }

    private func perhapsInScan(_ number: Int) -> World {
        var world = self
        if devices[number]?.isWaiting == true { world.devices[number]?.mayBeInScan = true }
        return world
    }

    /// A server was killed before it had written down what it serves.
    private func withoutRecord(_ number: Int) -> [World] {
        outcomesOfKill(number, withSupervisor: true).flatMap { world in
            var world = world
            world.devices[number]?.hasRecord = false
            // It may not have come to a disk.
            var unfinished = world
            unfinished.devices[number]?.life = .dead
            return [world, unfinished]
        }
    }

    /// The image is served under this number; none where another image's device has it.
    private func worldServing(_ file: FileID, _ name: String, _ number: Int, _ options: AddOptions) -> [World] {
        var world = self
        if var device = devices[number] {
            guard device.file == file, device.isWaiting, device.hasRecord,
                device.options.isReadOnly == options.isReadOnly
            else { return [] }
            device.options.isSupervised = options.isSupervised
            world.serve(&device)
            world.devices[number] = device
            return [world]
        }
        var device = Device(file: file, name: name, options: options, sizeMiB: files[file]?.sizeMiB ?? 0)
        // The log is gone, and nobody is promised it.
        let lostItsLog = files[file]?.session == .left(hasLog: false) || files[file]?.isCopy == true
        if lostItsLog {
            world.files[file]?.content.lose()
            if !options.isReadOnly { world.files[file]?.isCopy = false }
        }
        world.serve(&device)
        world.devices[number] = device
        return [world]
    }

    private mutating func serve(_ device: inout Device) {
        device.life = .live
        device.deaths = 0
        device.hasRecord = true
        device.hasSocket = true
        device.isRecordOld = false
        device.mayBeInScan = false
        guard !device.options.isReadOnly else { return }
        files[device.file]?.session = .open(hasLog: true)
        files[device.file]?.changedMeanwhile = false
    }

    private func outcomesOfDel(_ id: Int, force: Bool, _ interruption: Interruption, _ ending: Ending) -> [World] {
        guard let device = devices[id] else { return [self] }
        if case .exit(let status, _) = ending {
            if status == 0 { return [removed(id, force: force, isCertain: true)] }
            // Forced, it may go although its image cannot be completed, and that may be said.
            return force ? [self, removed(id, force: true, isCertain: false)] : [self]
        }
        let gone = removed(id, force: force, isCertain: ending.status == 0)
        if ending.status == 0 { return [gone] }
        var worlds = [self, gone]
        if device.life == .live { worlds += outcomesOfKill(id, withSupervisor: true) + outcomesOfKill(id, withSupervisor: false) }
        // What is left of a device whose removal has begun cannot be served again.
        for var world in worlds where world.devices[id] != nil {
            if world.devices[id]?.life == .live { continue }
            world.devices[id]?.life = .dead
            worlds.append(world)
        }
        for var world in worlds where world.devices[id] != nil {
            world.devices[id]?.hasRecord = false
            worlds.append(world)
        }
        return worlds
    }

    /// The device is gone. Certain is that all that was acknowledged is in the image.
    private func removed(_ id: Int, force: Bool, isCertain: Bool) -> World {
        guard let device = devices[id] else { return self }
        var world = self
        world.devices[id] = nil
        guard !device.options.isReadOnly, var file = files[device.file] else { return world }
        switch file.session {
        // Its last server has ended well, and nobody took what the file system has not written since.
        case .closed: if device.isMounted { file.content.fileSystem?.forget() }
        // Another device serves it.
        case .open where device.life != .live: break
        case .open(let hasLog):
            file.session = isCertain ? .closed : .left(hasLog: hasLog)
            if isCertain {
                file.content.settle()
                file.content.fileSystem?.settle()
            } else if device.isMounted {
                file.content.fileSystem?.forget()
            }
        case .left(let hasLog):
            if device.isMounted { file.content.fileSystem?.forget() }
            if !device.hasRecord {
                // Nobody could know which image it was.
            } else if hasLog && imageIsInPlace(device) {
                if isCertain {
                    file.session = .closed
                    file.content.settle()
                }
            } else if force {
                file.session = .left(hasLog: false)
            } else if isCertain {
                file.session = .closed
                file.content.settle()
            }
        }
        world.files[device.file] = file
        return world
    }

    private func outcomesOfRecover(_ id: Int, isSupervised: Bool, _ ending: Ending) -> [World] {
        guard var device = devices[id], device.isWaiting else { return [self] }
        if case .refuses = verdictOfRecover(id) { return [self] }
        var world = self
        device.options.isSupervised = isSupervised
        world.serve(&device)
        world.devices[id] = device
        if case .exit(let status, _) = ending { return status == 0 ? [world] : [self] }
        let killed =
            world.outcomesOfKill(id, withSupervisor: true) + (isSupervised ? world.outcomesOfKill(id, withSupervisor: false) : [])
        if ending.status == 0 { return [world] + killed }
        // Without a log it goes on waiting without one, as far as anybody is promised.
        if case .left(hasLog: false)? = files[device.file]?.session { return [self] + killed + [world] }
        return killed + [self, world]
    }

    private func outcomesOfRecoverAll(_ ending: Ending) -> [World] {
        var worlds = [self]
        for id in waitingDevices where devices[id]?.hasRecord == true {
            worlds = worlds.flatMap { world in
                let served = world.outcomesOfRecover(id, isSupervised: false, .exit(0))
                return ending == .exit(0) ? served : [world] + served
            }
        }
        return worlds
    }

    private func outcomesOfCreate(_ name: String, force: Bool, _ ending: Ending) -> [World] {
        if ending.status != 0, case .refuses = verdictOfCreate(name, force: force) { return [self] }
        var created = self
        created.names[name] = nextFile
        created.files[nextFile] = ImageFile(
            content: Content([UInt64](repeating: 0, count: Layout.sectorCount)), sizeMiB: Layout.sizeMiB)
        created.nextFile += 1
        if case .exit(let status, _) = ending { return status == 0 ? [created] : [self] }
        return ending.status == 0 ? [created] : [self, created]
    }

    private func outcomes(of tool: Tool, _ name: String, _ ending: Ending) -> [World] {
        guard ending.status == 0 || ending.isCut, let id = names[name], var file = files[id] else { return [self] }
        if ending.status != 0, case .refuses = verdictOf(tool, name, isMarked: false) { return [self] }
        var worlds = ending.status == 0 ? [] : [self]
        switch file.session {
        case .left(hasLog: true) where !file.isCopy:
            if ending.status == 0 {
                file.session = .closed
                file.content.settle()
            }
        case .left:
            file.session = .closed
            file.content.lose()
        default: if file.isCopy { file.content.lose() }
        }
        file.isCopy = false
        if devices.values.contains(where: { $0.file == id }) { file.changedMeanwhile = true }
        let sizes = tool == .grow ? (ending.status == 0 ? [1] : [0, 1]) : [0]
        for growth in sizes {
            var world = self
            world.files[id] = file
            world.files[id]?.sizeMiB += growth
            worlds.append(world)
        }
        return worlds
    }

    private func outcomesOfKill(_ id: Int, withSupervisor: Bool) -> [World] {
        guard var device = devices[id], device.life == .live else { return [self] }
        var world = self
        if !device.options.isReadOnly, case .open(let hasLog)? = files[device.file]?.session {
            world.files[device.file]?.session = .left(hasLog: hasLog)
        }
        device.life = device.options.isRecoverable ? .waiting(endedWell: false) : .dead
        if device.options.isSupervised && !withSupervisor && device.options.isRecoverable {
            device.deaths += 1
            world.devices[id] = device
            let canReturn = world.verdictOfRecover(id)
            var returned = device
            var restarted = world
            restarted.serve(&returned)
            returned.deaths = device.deaths
            restarted.devices[id] = returned
            // After a number of short lives it is left alone.
            if canReturn == .succeeds && device.deaths < 4 { return [restarted] }
            world.devices[id]?.options.isSupervised = false
            if case .refuses = canReturn { return [world] }
            return [world, restarted]
        }
        device.options.isSupervised = false
        world.devices[id] = device
        return [world]
    }

    private func outcomesOfTerminate(_ id: Int, withSupervisor: Bool) -> [World] {
        guard let device = devices[id], device.life == .live else { return [self] }
        if !device.isUsed { return [removed(id, force: false, isCertain: true)] }
        guard device.options.isRecoverable else {
            // It would be the end of a disk that is in use: it may stay.
            var ended = self
            ended.devices[id]?.life = .dead
            ended.close(device.file)
            return [self, ended]
        }
        let waiting = left(id)
        guard device.options.isSupervised, !withSupervisor else { return [waiting] }
        return waiting.outcomesOfRestart(id)
    }

    /// Its server has ended well, because it was told to, and without a supervisor it waits.
    func left(_ id: Int) -> World {
        guard let device = devices[id] else { return self }
        var waiting = self
        waiting.devices[id]?.life = .waiting(endedWell: true)
        waiting.devices[id]?.options.isSupervised = false
        // Its server writes that anew, where there is space.
        if !runtimeIsFull {
            waiting.devices[id]?.hasRecord = true
            waiting.devices[id]?.isRecordOld = false
        }
        if !device.options.isReadOnly { waiting.close(device.file) }
        return waiting
    }

    /// Its supervisor sees a waiting device.
    private func outcomesOfRestart(_ id: Int) -> [World] {
        let restarted = outcomesOfRecover(id, isSupervised: true, .exit(0))
        switch verdictOfRecover(id) {
        case .succeeds: return restarted
        case .refuses: return [self]
        case .either: return [self] + restarted
        }
    }

    /// One that is supervised stays so, by the supervisor that it has.
    private func outcomesOfUpgrade(_ id: Int, _ ending: Ending) -> [World] {
        guard let device = devices[id], device.life == .live else { return [self] }
        let restarted = left(id).outcomesOfRestart(id)
        return ending.status == 0 ? restarted.filter { $0.devices[id]?.life == .live } : restarted
    }

    private mutating func close(_ file: FileID) {
        files[file]?.session = .closed
        files[file]?.content.settle()
    }
}
