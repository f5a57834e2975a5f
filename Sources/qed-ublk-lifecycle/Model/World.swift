/// A file, whatever its name is now.
typealias FileID = Int

/// An image and what is known of it.
struct ImageFile: Equatable {
    /// What a server, alive or dead, has to do with it.
    enum Session: Equatable {
        case closed
        /// Whether the log of what is not in the file yet is where the server made it.
        case open(hasLog: Bool)
        /// Its server is dead.
        case left(hasLog: Bool)
    }

    var content: Content
    var sizeMiB: Int
    var session = Session.closed
    /// It was changed by something else after its server had been told to end and before the next one came.
    var changedMeanwhile = false
    /// A copy of one that was open, or left: whatever its header says is about another file.
    var isCopy = false
    /// Over a raw file.
    var isOverlay = false
}

/// What a device was made with.
struct AddOptions: Equatable {
    var isReadOnly = false
    var isSupervised = false
    var isRecoverable = true
    var queues = 1
    var zeroCopy = "auto"

    var arguments: [String] {
        let unlessUsual = !isRecoverable ? ["--no-recovery"] : !isSupervised ? ["--no-supervise"] : []
        return (isReadOnly ? ["-r"] : []) + unlessUsual + ["-q", "\(queues)", "--zero-copy", zeroCopy]
    }
}

/// A device of the kernel.
struct Device: Equatable {
    enum Life: Equatable {
        /// A server serves it.
        case live
        /// Its server was killed, or has ended well after SIGTERM; it waits for the next one.
        case waiting(endedWell: Bool)
        /// Its server has ended, and no other can have it.
        case dead
    }

    var file: FileID
    /// The name of the image when it was added.
    var name: String
    var options: AddOptions
    var life = Life.live
    /// The files beside the record of it are as the program left them.
    var hasRecord = true
    var hasSocket = true
    /// Somebody has put an earlier record of it back.
    var isRecordOld = false
    var sizeMiB = 0
    /// Its server was killed while it made the device: the kernel may have begun to read the partition table, and wait with that
    /// for the next server. Until then nobody can open the disk.
    var mayBeInScan = false
    /// How often its servers died since the last one that lived for long: a supervisor gives up at some time.
    var deaths = 0

    // Who uses it.
    var isHeld = false
    var isPartitionHeld = false
    var isMounted = false

    var isUsed: Bool { isHeld || isPartitionHeld || isMounted }
    var isWaiting: Bool { if case .waiting = life { true } else { false } }
}

/// All there is: names, files, devices, and what of the runtime directory matters.
struct World: Equatable {
    var names: [String: FileID] = [:]
    var files: [FileID: ImageFile] = [:]
    var devices: [Int: Device] = [:]
    var nextFile = 1
    /// The names of images that were moved away, by the names that they had.
    var aside: [String: String] = [:]
    var runtimeIsFull = false
    /// Of records, made some time ago.
    var hasCopies = false
    /// How often the file system of the images was mounted again.
    var mounts = 0

    /// The number of the device that has this file; nil where none has.
    func device(of file: FileID) -> Int? { devices.filter { $0.value.file == file }.keys.min() }

    /// The devices that were added under this name.
    func devices(addedAs name: String) -> [Int] { devices.filter { $0.value.name == name }.keys.sorted() }

    /// Whether the device's image is still where its server found it.
    func imageIsInPlace(_ device: Device) -> Bool { names[device.name] == device.file }

    var liveDevices: [Int] { devices.filter { $0.value.life == .live }.keys.sorted() }
    var waitingDevices: [Int] { devices.filter { $0.value.isWaiting }.keys.sorted() }
}

extension World {
    /// The logs of what is not in the images yet.
    mutating func wipeLogs() {
        for id in files.keys {
            switch files[id]?.session {
            case .open: files[id]?.session = .open(hasLog: false)
            case .left: files[id]?.session = .left(hasLog: false)
            default: break
            }
        }
    }

    mutating func wipeEverything() {
        wipeLogs()
        for id in devices.keys {
            devices[id]?.hasRecord = false
            devices[id]?.hasSocket = false
        }
    }
}
