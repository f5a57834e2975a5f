import Logging
import NBDStorage
import QEDChain

extension ImageSession {
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
