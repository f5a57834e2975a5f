/// One thing that somebody does to devices, images, servers or what lies around them.
enum Step: Equatable, CustomStringConvertible {
    // Commands of the program.
    case add(String, AddOptions, Interruption)
    case del(Int, force: Bool, Interruption)
    case recover(Int, inside: Bool, isSupervised: Bool = false, Interruption)
    case recoverAll
    case create(String, force: Bool, Interruption)
    case tool(Tool, String, Interruption)

    // What happens to servers.
    case kill(Int)
    case killSupervisor(Int)
    /// The supervisor may have begun to give the device its next server.
    case killSupervisorLater(Int, milliseconds: Int)
    case terminate(Int)
    case terminateSupervisor(Int)
    /// `recover` comes while the supervisor still leaves room for it.
    case upgrade(Int, isSupervised: Bool)
    case pause(Int, milliseconds: Int)
    /// Writes go on while the server is killed.
    case strike(Int, milliseconds: Int)

    // What happens to files.
    case replace(String, by: String)
    case copyOver(String)
    case putBack(String)
    case wipe(Wiped)
    case copyRecords
    case putRecordsBack
    case fillRuntime
    case freeRuntime
    case remount(otherFirst: Bool)

    // What users do.
    case write(Int, count: Int)
    case zero(Int, count: Int)
    case flush(Int)
    case hold(Int)
    case holdPartition(Int)
    case release(Int)
    case mount(Int)
    case writeFile(Int, sync: Bool)
    case unmount(Int)

    // What is looked at.
    case read(Int)
    case examine(String)

    var description: String {
        switch self {
        case .add(let name, let options, let interruption):
            "add \(options.arguments.joined(separator: " ")) \(name)\(interruption)"
        case .del(let id, let force, let interruption): "del \(force ? "--force " : "")\(id)\(interruption)"
        case .recover(let id, let inside, let isSupervised, let interruption):
            "recover \(isSupervised ? "" : "--no-supervise ")\(id)"
                + "\(inside ? ", in a directory on the device" : "")\(interruption)"
        case .recoverAll: "recover --all"
        case .create(let name, let force, let interruption): "create \(force ? "--force " : "")\(name)\(interruption)"
        case .tool(let tool, let name, let interruption): "\(tool.rawValue) \(name)\(interruption)"
        case .kill(let id): "kill -9 the server of \(id)"
        case .killSupervisor(let id): "kill -9 the supervisor of \(id), then its server"
        case .killSupervisorLater(let id, let milliseconds):
            "kill -9 the server of \(id), and its supervisor after \(milliseconds) ms"
        case .terminate(let id): "SIGTERM to the server of \(id)"
        case .terminateSupervisor(let id): "SIGTERM to the supervisor of \(id)"
        case .upgrade(let id, let isSupervised):
            "SIGTERM to the server of \(id), and recover\(isSupervised ? "" : " --no-supervise") at once"
        case .pause(let id, let milliseconds): "stop the server of \(id) for \(milliseconds) ms, and list meanwhile"
        case .strike(let id, let milliseconds): "write to \(id), and kill -9 its server after \(milliseconds) ms"
        case .replace(let name, let other): "mv \(name) away, mv \(other) \(name)"
        case .copyOver(let name): "mv \(name) away, with a copy in its place"
        case .putBack(let name): "mv what was \(name) back"
        case .wipe(let wiped): "rm \(wiped)"
        case .copyRecords: "copy the records"
        case .putRecordsBack: "put the copies of the records back"
        case .fillRuntime: "fill the runtime directory's file system"
        case .freeRuntime: "free the runtime directory's file system"
        case .remount(let otherFirst): "umount, \(otherFirst ? "mount another file system first, " : "")mount"
        case .write(let id, let count): "write \(count) times to \(id)"
        case .zero(let id, let count): "zero \(count) times on \(id)"
        case .flush(let id): "flush \(id)"
        case .hold(let id): "open \(id)"
        case .holdPartition(let id): "open a partition of \(id)"
        case .release(let id): "close \(id)"
        case .mount(let id): "mount \(id)"
        case .writeFile(let id, let sync): "write a file\(sync ? ", with fsync," : "") on \(id)"
        case .unmount(let id): "umount \(id)"
        case .read(let id): "read \(id)"
        case .examine(let name): "convert and check \(name)"
        }
    }
}

extension Step {
    /// The device that it is about; nil where it makes one, or is about several.
    var device: Int? {
        switch self {
        case .del(let id, _, _), .recover(let id, _, _, _), .kill(let id), .killSupervisor(let id),
            .killSupervisorLater(let id, _), .terminate(let id), .terminateSupervisor(let id), .upgrade(let id, _),
            .strike(let id, _):
            id
        default: nil
        }
    }
}

/// What of a command is killed, and after how many milliseconds.
enum Interruption: Equatable, CustomStringConvertible {
    case none
    case command(milliseconds: Int)
    case server(milliseconds: Int)

    var description: String {
        switch self {
        case .none: ""
        case .command(let milliseconds): ", killed after \(milliseconds) ms"
        case .server(let milliseconds): ", its server killed after \(milliseconds) ms"
        }
    }
}

/// A command that changes an image that nobody serves.
enum Tool: String, CaseIterable {
    case grow = "resize"
    case repair = "check -r"
    case compact
    case commit
}

/// What of the runtime directory is taken away.
enum Wiped: Equatable, CustomStringConvertible {
    case everything
    case record(Int)
    case socket(Int)
    case logs

    var description: String {
        switch self {
        case .everything: "everything in the runtime directory"
        case .record(let id): "the record of \(id)"
        case .socket(let id): "the socket of \(id)"
        case .logs: "the logs of all images"
        }
    }
}
