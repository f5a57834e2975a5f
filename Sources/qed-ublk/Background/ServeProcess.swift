import ArgumentParser
import CSupport
import DeviceServer
import Logging
import SystemPackage

/// The process behind `add` without `--foreground`. Not for users: its standard error is a log file, and descriptor 3 is
/// connected with `add`.
enum ServeProcess {
    /// - Parameter arguments: `ServerConfiguration.serveArguments`.
    static func run(_ arguments: [String]) throws {
        // It was started as /proc/self/exe, and would be called exe.
        cs_name_process("qed-ublk")
        Detachment.leaveControlGroup()
        LoggingSystem.bootstrap(PrintableLog.standardError)
        let add = FileDescriptor(rawValue: 3)
        var deviceID: UInt32?
        do {
            let log = Logger(label: "qed-ublk")
            let logDirectory = try ServerLog.openDirectory()
            let process = try ServerProcess()
            let configuration = try ServerConfiguration(serveArguments: arguments)
            let server = Server(configuration, process: process, log: log)
            let ending = try server.run { id, path in
                deviceID = id
                defer { try? logDirectory.close() }
                do {
                    try ServerLog.publish(deviceID: id, recovers: configuration.recovers, in: logDirectory)
                } catch { return false }
                return BackgroundServer.announce(path, to: add)
            } gone: {
                if let deviceID { ServerLog.remove(deviceID: deviceID) }
            }
            if ending == .left { throw ExitCode(ExitStatus.left.rawValue) }
        } catch {
            // Afterwards the log has it.
            if deviceID == nil {
                let status = (error as? any ReportableError)?.exitStatus ?? .failure
                _ = try? add.writeAll(BackgroundServer.Report.failed(status, "\(error)").line.utf8)
            }
            throw error
        }
    }
}
