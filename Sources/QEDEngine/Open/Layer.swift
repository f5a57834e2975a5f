import QEDFormat

/// A layer of a chain: layer 0 is the image itself, layer 1 its backing file, and so on. Only the last one can be raw.
///
/// What is known of it before its tables are read. The engine's part of it is `ImageTables` or `BaseTables`, a queue's
/// `QueueLayer`, and its open file, which the engine does not know, `LayerFile`.
public enum Layer: Sendable {
    case qed(header: QEDHeader, fileSizeBytes: UInt64)
    case raw(sizeBytes: UInt64)

    var isRaw: Bool {
        if case .raw = self { true } else { false }
    }

    /// How much of the disk it can have.
    var sizeBytes: UInt64 {
        switch self {
        case .qed(let header, _): header.imageSizeBytes
        case .raw(let sizeBytes): sizeBytes
        }
    }

    /// Length of its file when it was opened.
    var fileSizeBytes: UInt64 {
        switch self {
        case .qed(_, let fileSizeBytes): fileSizeBytes
        case .raw(let sizeBytes): sizeBytes
        }
    }
}
