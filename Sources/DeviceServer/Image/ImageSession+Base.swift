import BlockStorage
import Logging
import NBDStorage
import Platform
import QEDChain

extension [LayerFile] {
    /// The base elsewhere at the bottom of a chain, for the device's record; nil where there is none.
    var base: KnownBase? {
        (last?.source as? NBDExport).map { KnownBase(address: $0.address.text, sizeBytes: $0.sizeBytes) }
    }
}

extension KnownBase {
    var json: JSONValue { ["address": .string(address), "size": JSONValue(sizeBytes)] }

    init?(_ json: JSONValue) {
        guard let address = json["address"]?.text, let size = json["size"]?.integer(as: UInt64.self) else { return nil }
        self.init(address: address, sizeBytes: size)
    }
}

extension ImageSession {
    /// What people and programs are told of the base elsewhere: its address, whether it is `there`, `away` or `changed` (it has
    /// another size now), and since when, and why, where it is not there. Null all where there is none.
    var baseMembers: [JSONValue.Member] {
        let export = chain.last?.source as? NBDExport
        let absence = export?.absence
        let state = export.map { _ in absence.map { $0.isAnother ? "changed" : "away" } ?? "there" }
        return [
            .init("base", export.map { .string($0.address.text) } ?? .null),
            .init("base-state", state.map { .string($0) } ?? .null),
            .init("base-away-since", absence.map { JSONValue($0.since) } ?? .null),
            .init("base-away-reason", absence.map { .string($0.reason) } ?? .null),
        ]
    }

    /// Whether nothing is read that has to wait for it to come back.
    var isBaseThere: Bool { (chain.last?.source as? NBDExport)?.absence == nil }

    /// Reads of the base elsewhere fail, those that wait for it too; or are answered again.
    func failBaseReads(_ fails: Bool) { (chain.last?.source as? NBDExport)?.failReads(fails) }

    /// What waits for the base elsewhere, while that is away, waits no more: see `NBDExport.leaveReads`.
    func leaveBaseReads() { (chain.last?.source as? NBDExport)?.leaveReads() }

    /// Has the log told when the base elsewhere is away, and when it is back. Once each.
    func watchBase(_ log: Logger) {
        guard let export = chain.last?.source as? NBDExport else { return }
        let address = export.address.text
        export.whenItChanges { change in
            switch change {
            case .away(let failure):
                log.warning("\(address) is away (\(failure)); what the image has is read, and other reads wait for it")
            case .back: log.info("\(address) is back")
            case .another(let sizeBytes):
                log.error(
                    """
                    \(address) has \(sizeBytes) bytes now, and is not what the image was made over; reads of it fail until it is \
                    put back and the device recovered
                    """)
            }
        }
    }
}
