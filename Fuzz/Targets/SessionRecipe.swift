import BlockStorage
import FuzzImages
import Platform

@testable import QEDEngine

/// What an earlier process may have left of its mapping log, as an input describes it: records that fit the image or not.
final class SessionRecipe {
    let memory: SessionMemory?
    private let address: UnsafeMutableRawPointer
    private static let capacity = 32

    init(_ reader: inout ByteReader, _ file: SparseFile) {
        let sizeBytes = MappingLog.sizeBytes(capacity: SessionRecipe.capacity)
        address = .allocate(byteCount: sizeBytes, alignment: 4096)
        address.initializeMemory(as: UInt8.self, repeating: 0, count: sizeBytes)
        let kind = reader.byte()
        guard kind & 0xc0 == 0x40 else {
            memory = nil
            return
        }
        let owner = MappingLog.Owner(image: FileIdentity(high: 1, low: 2), boot: BootIdentity(high: 3, low: 4))
        memory = SessionMemory(address: address, sizeBytes: sizeBytes, owner: owner, newSession: 5)
        var log = MappingLog(formatting: address, capacity: SessionRecipe.capacity, for: owner, session: 5)
        let clusterSize = max(file.word(at: 0) >> 32, 4096)
        let clusters = file.length / clusterSize
        for _ in 0..<Int(kind & 0x1f) where log.lastSequence < UInt64(SessionRecipe.capacity) {
            let isTable = reader.byte() & 1 == 1
            let index = reader.byte() == 0xff ? reader.word() >> 2 : UInt64(reader.byte())
            log.append(
                isTable ? .table : .entry, index: index, value: value(&reader, clusterSize, clusters),
                oldValue: isTable ? 0 : value(&reader, clusterSize, clusters))
        }
        if kind & 0x20 != 0 {
            // Damage: words of the log itself.
            for _ in 0..<2 {
                let place = reader.half() % UInt64(sizeBytes / 8)
                address.storeBytes(of: reader.word(), toByteOffset: Int(place) * 8, as: UInt64.self)
            }
        }
    }

    deinit { address.deallocate() }

    private func value(_ reader: inout ByteReader, _ clusterSize: UInt64, _ clusters: UInt64) -> UInt64 {
        let choice = reader.byte()
        return switch choice {
        case 0xff: reader.word()
        case 0xfe: 1
        case 0xfd: clusters &* clusterSize
        case 0x80..<0xf0: (clusters &- UInt64(choice & 0x7f)) &* clusterSize
        default: UInt64(choice) &* clusterSize
        }
    }
}
