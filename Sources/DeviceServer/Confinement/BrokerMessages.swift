import Platform
import QEDFormat

/// What a confined server asks of its broker: of its own device alone, and nothing that names another one, or a file.
enum BrokerRequest: Equatable {
    case describe(DiskShape)
    case start
    case endRecovery
    case askSize
    case grow(toBytes: UInt64)
    case stop(force: Bool, timeoutSeconds: Int)
    case isMachineGoingDown
    case flushDisk
    case note(DeviceNote)
    case forgetDevice(isClosed: Bool)

    var json: JSONValue {
        switch self {
        case .describe(let shape):
            [
                "do": "describe", "size": JSONValue(shape.sizeBytes), "block-size": JSONValue(shape.blockSizeBytes),
                "cluster-size": JSONValue(shape.clusterSizeBytes),
            ]
        case .start: ["do": "start"]
        case .endRecovery: ["do": "end-recovery"]
        case .askSize: ["do": "ask-size"]
        case .grow(let sizeBytes): ["do": "grow", "size": JSONValue(sizeBytes)]
        case .stop(let force, let timeoutSeconds):
            ["do": "stop", "force": .bool(force), "timeout": JSONValue(timeoutSeconds)]
        case .isMachineGoingDown: ["do": "ask-machine"]
        case .flushDisk: ["do": "flush"]
        case .note(.failed): ["do": "note-failed"]
        case .note(.goesWhenUnused): ["do": "note-goes-when-unused"]
        case .note(.access(let isDirect)): ["do": "note-access", "direct": .bool(isDirect)]
        case .note(.grows(let sizeBytes)): ["do": "note-size", "size": sizeBytes.map { JSONValue($0) } ?? .null]
        case .note(.left(let mark)): ["do": "note-left", "mark": mark?.json ?? .null]
        case .forgetDevice(let isClosed): ["do": "forget", "closed": .bool(isClosed)]
        }
    }

    init?(_ json: JSONValue) {
        switch json["do"]?.text {
        case "describe":
            guard let shape = DiskShape(json) else { return nil }
            self = .describe(shape)
        case "start": self = .start
        case "end-recovery": self = .endRecovery
        case "ask-size": self = .askSize
        case "grow":
            guard let size = DiskShape.sizeBytes(json["size"]) else { return nil }
            self = .grow(toBytes: size)
        case "note-size":
            guard let size = json["size"] else { return nil }
            guard size != .null else {
                self = .note(.grows(toBytes: nil))
                return
            }
            guard let size = DiskShape.sizeBytes(size) else { return nil }
            self = .note(.grows(toBytes: size))
        case "stop":
            guard let force = json["force"]?.truth, let seconds = json["timeout"]?.integer(as: Int.self),
                ControlRequest.stopTimeoutRange.contains(seconds)
            else { return nil }
            self = .stop(force: force, timeoutSeconds: seconds)
        case "ask-machine": self = .isMachineGoingDown
        case "flush": self = .flushDisk
        case "note-failed": self = .note(.failed)
        case "note-goes-when-unused": self = .note(.goesWhenUnused)
        case "note-access":
            guard let isDirect = json["direct"]?.truth else { return nil }
            self = .note(.access(isDirect: isDirect))
        case "note-left":
            guard let mark = json["mark"] else { return nil }
            self = .note(.left(ImageMark(mark)))
        case "forget":
            guard let isClosed = json["closed"]?.truth else { return nil }
            self = .forgetDevice(isClosed: isClosed)
        default: return nil
        }
    }
}

extension DiskShape {
    /// Whatever a server says it is something that the kernel can be told.
    fileprivate init?(_ json: JSONValue) {
        guard let size = DiskShape.sizeBytes(json["size"]), let block = json["block-size"]?.integer(as: Int.self),
            let cluster = json["cluster-size"]?.integer(as: UInt64.self),
            ServerConfiguration.blockSizes.contains(block), cluster.nonzeroBitCount == 1,
            (QEDLimits.minimumClusterSizeBytes...QEDLimits.maximumClusterSizeBytes).contains(cluster)
        else { return nil }
        self.init(sizeBytes: size, blockSizeBytes: block, clusterSizeBytes: cluster)
    }

    fileprivate static func sizeBytes(_ json: JSONValue?) -> UInt64? {
        guard let size = json?.integer(as: UInt64.self), size % QEDLimits.sectorSizeBytes == 0,
            (QEDLimits.sectorSizeBytes...QEDLimits.maximumImageSizeBytes).contains(size)
        else { return nil }
        return size
    }
}

/// What the broker answers.
enum BrokerReply: Equatable {
    case done
    /// The disk is in use: by whom, in a sentence.
    case inUse(String)
    case isGoingDown(Bool)
    /// Of the disk.
    case size(UInt64)
    /// What was not done and should be known, as what was not flushed.
    case sentences([String])
    case forgotten(DiskWithdrawal.Remains)
    case failed(String)

    var json: JSONValue {
        switch self {
        case .done: ["done": .bool(true)]
        case .inUse(let sentence): ["in-use": .string(sentence)]
        case .size(let bytes): ["size": JSONValue(bytes)]
        case .isGoingDown(let isGoingDown): ["going-down": .bool(isGoingDown)]
        case .sentences(let sentences): ["sentences": .array(sentences.map { .string($0) })]
        case .forgotten(let remains):
            ["number-taken": .bool(remains.number), "unwritten": remains.unwritten.map { .string($0) } ?? .null]
        case .failed(let sentence): ["failed": .string(sentence)]
        }
    }

    init?(_ json: JSONValue) {
        if let sentence = json["failed"]?.text {
            self = .failed(sentence)
        } else if let sentence = json["in-use"]?.text {
            self = .inUse(sentence)
        } else if let isGoingDown = json["going-down"]?.truth {
            self = .isGoingDown(isGoingDown)
        } else if let bytes = json["size"]?.integer(as: UInt64.self) {
            self = .size(bytes)
        } else if let sentences = json["sentences"]?.texts {
            self = .sentences(sentences)
        } else if let number = json["number-taken"]?.truth {
            self = .forgotten(.init(number: number, unwritten: json["unwritten"]?.text))
        } else if json["done"]?.truth == true {
            self = .done
        } else {
            return nil
        }
    }
}
