import CSupport
import Platform

/// Tells how far a device's server is with a merge, or with a copy into its image, as long as somebody waits for that.
enum MergeWatch {
    /// - Parameter progress: called with the share that is done, on a thread of its own; nil: nobody wants to know.
    static func during<Value>(
        _ record: DeviceRecord, _ registry: DeviceRegistry, tell progress: (@Sendable (Double) -> Void)?,
        _ body: () throws -> Value
    ) throws -> Value {
        let isDone = Lock(false)
        let watcher = try progress.map { show in
            try BackgroundThread {
                while !isDone.withLock({ $0 }) {
                    if let merge = try? ControlSocketClient.ask(.status, of: record, registry)["merge"],
                        let thousandths = merge["done-per-mille"]?.integer(as: Int.self)
                    {
                        show(Double(thousandths) / 1000)
                    }
                    cs_sleep_milliseconds(200)
                }
            }
        }
        defer {
            isDone.withLock { $0 = true }
            watcher?.join()
        }
        let value = try body()
        progress?(1)
        return value
    }

    /// For an answer that comes when all of it is done.
    static let timeout = Duration.seconds(86_400 * 7)
}
