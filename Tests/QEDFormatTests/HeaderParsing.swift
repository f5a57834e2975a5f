import QEDFormat
import TestSupport

extension HeaderBuilder {
    func parsed() throws(QEDFormatError) -> QEDHeader {
        try QEDHeader(parsing: bytes, fileSizeBytes: fileSizeBytes)
    }

    /// The error that parsing throws, or nil if it succeeds.
    public var refusal: QEDFormatError? {
        do throws(QEDFormatError) {
            _ = try parsed()
            return nil
        } catch {
            return error
        }
    }
}
