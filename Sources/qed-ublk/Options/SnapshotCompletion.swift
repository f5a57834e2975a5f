import ArgumentParser
import DeviceServer
import ImageTools
import QEDChain

/// What a shell offers where a snapshot of a device, or of an image, is named.
enum SnapshotCompletion {
    static let kind = CompletionKind.custom { words, _, _ in paths(beneath: words) }

    /// The files beneath the first of the words that is a device, or an image that lies over something.
    private static func paths(beneath words: [String]) -> [String] {
        for word in words.dropFirst() {
            guard let chain = chain(of: word) else { continue }
            let beneath = chain.members.dropFirst().map { member in
                switch member {
                case .qed(let image): image.path
                case .raw(let path, sizeBytes: _, allocatedBytes: _): path
                }
            }
            if !beneath.isEmpty { return beneath }
        }
        return []
    }

    private static func chain(of word: String) -> ChainDescription? {
        guard let record = try? DeviceRegistry().device(named: word) else { return try? ChainDescription(reading: word) }
        return try? record.chainDescription()
    }
}
