/// What a command has to answer.
enum Verdict: Equatable {
    case succeeds
    /// With one of these exit statuses; with any but 0 where there are none.
    case refuses(Set<Int32>)
    /// Both are right; what follows from exit status 0 must be true all the same.
    case either

    static let busy = Verdict.refuses([3])
    static let notFound = Verdict.refuses([4])
    static let refusesSomehow = Verdict.refuses([])

    func allows(_ status: Int32) -> Bool {
        switch self {
        case .succeeds: status == 0
        case .refuses(let statuses): status != 0 && (statuses.isEmpty || statuses.contains(status))
        case .either: true
        }
    }
}

extension World {
    /// What a command has to answer that nobody interrupts; nil for steps that are no command of the program.
    ///
    /// - Parameter isMarked: whether the header of the image says that a log exists.
    func verdict(of step: Step, isMarked: Bool = false) -> Verdict? {
        switch step {
        case .add(let name, let options, _): verdictOfAdd(name, options)
        case .del(let id, let force, let interruption): verdictOfDel(id, force: force, interruption)
        case .recover(let id, _, _, _): verdictOfRecover(id)
        case .recoverAll: verdictOfRecoverAll()
        case .create(let name, let force, _): verdictOfCreate(name, force: force)
        case .tool(let tool, let name, _): verdictOf(tool, name, isMarked: isMarked)
        default: nil
        }
    }

    func verdictOfAdd(_ name: String, _ options: AddOptions) -> Verdict {
        guard let id = names[name], let file = files[id] else { return .notFound }
        let users = devices.values.filter { $0.file == id }
        if users.contains(where: { $0.life == .live && !$0.options.isReadOnly }) {
            // Two that only read may read together.
            return .busy
        }
        if let user = devices.first(where: { $0.value.file == id }), users.count == 1, user.value.isWaiting,
            user.value.hasRecord, user.value.name == name, user.value.options.isReadOnly == options.isReadOnly,
            user.value.options.queues == options.queues, options.isRecoverable
        {
            return verdictOfRecover(user.key)
        }
        if !users.isEmpty || runtimeIsFull || !devices(addedAs: name).isEmpty { return .either }
        switch file.session {
        case .closed: return file.isCopy ? .either : .succeeds
        case .open: return .either
        case .left(let hasLog): return hasLog && !options.isReadOnly ? .succeeds : .either
        }
    }

    private func verdictOfDel(_ id: Int, force: Bool, _ interruption: Interruption) -> Verdict {
        guard let device = devices[id] else { return .notFound }
        // It could be another program's.
        if device.life == .live && (!device.hasRecord || device.isRecordOld) { return .busy }
        // One that is dead has no disk any more, and its users nothing to lose.
        if device.isUsed && device.life != .dead && !force {
            // A disk that cannot wait for another server goes with its own.
            if case .server = interruption, !device.options.isRecoverable { return .either }
            return .busy
        }
        // Its server cannot be asked. One that is killed while del waits for its end leaves a device that can be removed.
        if device.life == .live && !device.hasSocket {
            if case .server = interruption { return .either }
            return .busy
        }
        if force || device.mayBeInScan { return .either }
        if device.life == .live { return .succeeds }
        guard device.hasRecord else { return .succeeds }
        if device.isRecordOld { return .either }
        if !device.options.isReadOnly && !imageIsInPlace(device) && !hasOtherWriter(device, id) { return .refusesSomehow }
        return canComplete(device) && !runtimeIsFull ? .succeeds : .either
    }

    /// Whether the image is served by another device by now: what this one's server had answered is known there.
    private func hasOtherWriter(_ device: Device, _ id: Int) -> Bool {
        devices.contains {
            $0.key != id && $0.value.file == device.file && $0.value.life == .live && !$0.value.options.isReadOnly
        }
    }

    /// Whether all that a device's last server answered can be brought into the image.
    private func canComplete(_ device: Device) -> Bool {
        if device.options.isReadOnly { return true }
        guard let file = files[device.file], imageIsInPlace(device) else { return false }
        return file.session == .closed && !file.changedMeanwhile || file.session == .left(hasLog: true)
    }

    func verdictOfRecover(_ id: Int) -> Verdict {
        guard let device = devices[id] else { return .notFound }
        switch device.life {
        // Without a record it is not known whose it is.
        case .live: return device.hasRecord && !device.isRecordOld ? .busy : .refusesSomehow
        case .dead: return .refusesSomehow
        case .waiting:
            guard device.hasRecord, let file = files[device.file], imageIsInPlace(device), file.sizeMiB == device.sizeMiB
            else { return .refusesSomehow }
            let others = devices.filter { $0.key != id && $0.value.file == device.file }.values
            if others.contains(where: { $0.life == .live && !($0.options.isReadOnly && device.options.isReadOnly) }) {
                return .refusesSomehow
            }
            if !others.isEmpty || runtimeIsFull || file.changedMeanwhile || device.isRecordOld { return .either }
            return canComplete(device) ? .succeeds : .either
        }
    }

    private func verdictOfRecoverAll() -> Verdict {
        let verdicts = waitingDevices.filter { devices[$0]?.hasRecord == true }.map(verdictOfRecover)
        if verdicts.contains(where: { if case .refuses = $0 { true } else { false } }) { return .refusesSomehow }
        // Those without a record may be mentioned or not.
        return verdicts.contains(.either) || devices.values.contains { !$0.hasRecord } ? .either : .succeeds
    }

    func verdictOfCreate(_ name: String, force: Bool) -> Verdict {
        guard let id = names[name], let file = files[id] else { return .succeeds }
        guard force else { return .busy }
        let users = devices.values.filter { $0.file == id }
        if users.contains(where: { $0.life == .live || $0.isWaiting && $0.hasRecord && $0.name == name }) { return .busy }
        if !users.isEmpty || !devices(addedAs: name).isEmpty { return .either }
        return file.session == .closed && !file.isCopy ? .succeeds : .either
    }

    func verdictOf(_ tool: Tool, _ name: String, isMarked: Bool) -> Verdict {
        guard let id = names[name], let file = files[id] else { return .notFound }
        if tool == .commit && !file.isOverlay { return .refusesSomehow }
        let users = devices.values.filter { $0.file == id }
        // The statuses of check are those of qemu-img check: 3 means leaks.
        if users.contains(where: { $0.life == .live }) { return tool == .repair ? .refuses([1]) : .busy }
        // Whoever changes the image without the log that its header speaks of loses what was acknowledged.
        let hasLog = file.session == .left(hasLog: true) && !file.isCopy
        if isMarked && (!hasLog || users.contains { $0.isWaiting && $0.hasRecord && $0.name == name }) {
            return .refusesSomehow
        }
        return users.isEmpty && file.session == .closed && !file.isCopy ? .succeeds : .either
    }
}
