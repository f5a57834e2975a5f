import Glibc
import Platform

/// A server that a signal has asked to end, and that has not ended yet.
enum LeavingServer {
    private static let deadlineSeconds = 120

    /// Waits for its end; for one that does not leave, or does not say so, not at all.
    static func waitForEnd(in record: DeviceRecord) {
        var isKnownToLeave = false
        for _ in 0..<(deadlineSeconds * 10) where record.server.isRunning {
            do throws(ControlSocketError) {
                let reply = try ControlSocketClient.send(.status, deviceID: record.deviceID, timeout: .seconds(5))
                guard case .success(let status) = reply, status["leaving"] == .bool(true) else { return }
                isKnownToLeave = true
            } catch {
                // Its last step: nobody is answered any more. One whose socket somebody has removed may serve for years.
                guard error.serverHasEnded else { return }
                if case .noSocket = error, !isKnownToLeave { return }
            }
            usleep(100_000)
        }
    }
}
