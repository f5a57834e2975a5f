import Logging
import Platform
import QEDEngine
import Ublk

/// Makes room for what a device keeps of its base, in time (`KeptRoom`). Belongs to the server's main thread.
final class KeptBound {
    private let isEnding = Answer<Bool>()
    private var thread: BackgroundThread?

    private static let interval = Duration.milliseconds(100)
    private static let intervalAfterFailure = Duration.seconds(10)

    /// nil: what is kept has no bound.
    init?(_ live: LiveDevice, log: Logger) {
        guard let limit = live.keepLimitBytes, limit < BaseCache.noLimitBytes else { return nil }
        let (isEnding, path) = (self.isEnding, live.session.path)
        thread = try? BackgroundThread {
            var (interval, lastFailure) = (Self.interval, "")
            while isEnding.wait(timeout: interval) == nil {
                interval = Self.interval
                let image = live.session.image
                // To hold the queues would have all requests wait for those that wait for the base.
                guard image.wantsRoomForReads, live.session.isBaseThere else { continue }
                do throws(SnapshotError) {
                    try KeptRoom(live).make(insteadOf: image)
                    log.info("\(path) has kept nearly \(limit / 2) bytes, and begins anew; what it had before that is let go")
                    lastFailure = ""
                } catch {
                    let failure = "\(error)"
                    if failure != lastFailure { log.warning("\(path) keeps no more: \(failure)") }
                    (interval, lastFailure) = (Self.intervalAfterFailure, failure)
                }
            }
        }
        if thread == nil { log.warning("\(path): nothing is let go: the server has no thread for that") }
    }

    /// The disk is gone, or about to get another server. Once.
    func end() {
        isEnding.give(true)
        thread?.join()
    }
}
