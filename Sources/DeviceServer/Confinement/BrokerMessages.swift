import Platform

/// What a confined server asks of its broker: of its own device alone, and nothing that names another one, or a file.
enum BrokerRequest: Equatable {
    case stop(force: Bool, timeoutSeconds: Int)
    case isMachineGoingDown
    case flushDisk
    case note(DeviceNote)
    case forgetDevice(isClosed: Bool)

    var json: JSONValue {
        switch self {
        case .stop(let force, let timeoutSeconds):
            ["do": "stop", "force": .bool(force), "timeout": JSONValue(timeoutSeconds)]
        case .isMachineGoingDown: ["do": "ask-machine"]
        case .flushDisk: ["do": "flush"]
        case .note(.failed): ["do": "note-failed"]
        case .note(.goesWhenUnused): ["do": "note-goes-when-unused"]
        case .note(.left(let mark)): ["do": "note-left", "mark": mark?.json ?? .null]
        case .forgetDevice(let isClosed): ["do": "forget", "closed": .bool(isClosed)]
        }
    }

    init?(_ json: JSONValue) {
        switch json["do"]?.text {
        case "stop":
            guard let force = json["force"]?.truth, let seconds = json["timeout"]?.integer(as: Int.self),
                ControlRequest.stopTimeoutRange.contains(seconds)
            else { return nil }
            self = .stop(force: force, timeoutSeconds: seconds)
        case "ask-machine": self = .isMachineGoingDown
        case "flush": self = .flushDisk
        case "note-failed": self = .note(.failed)
        case "note-goes-when-unused": self = .note(.goesWhenUnused)
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

/// What the broker answers.
enum BrokerReply: Equatable {
    case done
    /// The disk is in use: by whom, in a sentence.
    case inUse(String)
    case isGoingDown(Bool)
    /// What was not flushed, in sentences.
    case flushed([String])
    case forgotten(DiskWithdrawal.Remains)
    case failed(String)

    var json: JSONValue {
        switch self {
        case .done: ["done": .bool(true)]
        case .inUse(let sentence): ["in-use": .string(sentence)]
        case .isGoingDown(let isGoingDown): ["going-down": .bool(isGoingDown)]
        case .flushed(let sentences): ["flushed": .array(sentences.map { .string($0) })]
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
        } else if let sentences = json["flushed"]?.texts {
            self = .flushed(sentences)
        } else if let number = json["number-taken"]?.truth {
            self = .forgotten(.init(number: number, unwritten: json["unwritten"]?.text))
        } else if json["done"]?.truth == true {
            self = .done
        } else {
            return nil
        }
    }
}
