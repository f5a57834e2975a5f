import CSupport
import Logging
import SystemPackage

/// The process behind `add` without `--foreground`. Not for users: its standard error is a log file, and descriptor 3 is
/// connected with `add`.
public enum ServeProcess {
    /// Serves a device until it is gone, or left to the next server.
    /// - Parameters:
    ///   - arguments: `ServerConfiguration.serveArguments`.
    ///   - status: what the program ends with after an error: `add` is to end with it too.
    /// - Throws: what the process is to say before it ends; `add` has been told, where there is no device yet.
    public static func run(
        _ arguments: [String], log: Logger, status: (any Error) -> Int32
    ) throws -> ServerEnding {
        // It was started as /proc/self/exe, and would be called exe.
        cs_name_thread("qed-ublk")
        Detachment.leaveControlGroup()
        let add = FileDescriptor(rawValue: 3)
        var deviceID: UInt32?
        var isAnnounced = false
        do {
            let logDirectory = try ServerLog.openDirectory()
            let process = try ServerProcess()
            let configuration = try ServerConfiguration(serveArguments: arguments)
            let server = Server(configuration, process: process, log: log)
            var isPublished = false
            return try server.run { id in
                deviceID = id
                defer { try? logDirectory.close() }
                isPublished =
                    (try? ServerLog.publish(deviceID: id, recovers: configuration.recovers, in: logDirectory)) != nil
            } ready: { _, path in
                isAnnounced = true
                return isPublished && BackgroundServer.announce(path, to: add)
            } gone: {
                if let deviceID { ServerLog.remove(deviceID: deviceID) }
            }
        } catch {
            // Afterwards the log has it.
            if !isAnnounced {
                _ = try? add.writeAll(BackgroundServer.Report.failed(status: status(error), "\(error)").line.utf8)
            }
            throw error
        }
    }
}
