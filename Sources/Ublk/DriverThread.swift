import Platform
import SystemPackage

/// The thread of a queue: opens it, serves it and ends, and only then the queue is let go of (`DriverQueue.close`).
///
/// Whoever makes one joins it, once.
public struct DriverThread: Sendable {
    private let thread: BackgroundThread
    /// What the thread has opened.
    private let queue: Lock<DriverQueue?>

    /// Starts the thread.
    /// - Parameters:
    ///   - info: the device as it was negotiated.
    ///   - body: runs on the thread. What it is given opens the queue, once, and throws the errno of what could not be had.
    /// - Throws: the errno of `pthread_create`.
    public init(
        device: UblkCharacterDevice, info: UblkDeviceInfo, queue number: Int,
        _ body: @escaping (_ open: () throws(Errno) -> DriverQueue) -> Void
    ) throws(Errno) {
        let queue = Lock<DriverQueue?>(nil)
        self.queue = queue
        thread = try BackgroundThread {
            body { () throws(Errno) in
                let opened = try DriverQueue(device: device, info: info, queue: number)
                queue.withLock { $0 = opened }
                return opened
            }
        }
    }

    /// Waits for its end, and lets go of the queue.
    public func join() {
        thread.join()
        queue.withLock { queue in
            queue?.close()
            queue = nil
        }
    }
}
