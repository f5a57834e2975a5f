import Platform
import QEDEngine
import Ublk

/// What `status` answers.
extension ServedDevice {
    /// - Parameters:
    ///   - isReadOnly: of the disk; its image may keep what is read.
    ///   - isLeaving: a signal has asked for the server's end.
    func status(path: String, isReadOnly: Bool, isLeaving: Bool, merge: JSONValue) -> JSONValue {
        let status: JSONValue = [
            "protocol": JSONValue(ControlRequest.protocolVersion), "device": .string(blockDevicePath), "image": .string(path),
            "size": JSONValue(session.image.sizeBytes),
            "queues": JSONValue(info.queueCount), "depth": JSONValue(info.queueDepth),
            "read-only": .bool(isReadOnly), "backing-files": JSONValue(session.chain.count - 1),
            "merge": merge, "leaving": .bool(isLeaving), "failed": .bool(session.image.failedSync != nil),
            "block-size": session.blocks.map { JSONValue($0.blockSizeBytes) } ?? .null,
            "block-size-reason": session.blocks.map { .string($0.blockReason) } ?? .null,
            "direct-io": session.blocks.map { .bool($0.isDirect) } ?? .null,
            "direct-io-reason": session.blocks.map { .string($0.accessReason) } ?? .null,
            "zero-copy": .bool(info.isZeroCopy), "max-io-size": JSONValue(info.maxIOSizeBytes),
        ]
        guard case .object(let members) = status else { preconditionFailure("a status without members") }
        return .object(members + session.baseMembers)
    }
}
