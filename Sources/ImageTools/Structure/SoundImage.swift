import BlockStorage
import QEDChain
import QEDEngine
import QEDFormat

extension OfflineImage {
    /// Opens an image that a tool is going to change: for itself alone, and only if its structure is sound. What a
    /// crash has left of allocations that no flush covered is dropped first, as the format asks.
    static func sound(path: String, policy: BackingPolicy? = nil) throws(ImageToolError) -> OfflineImage {
        let image = try OfflineImage(path: path, access: .readWrite, policy: policy)
        let structure = image.structure
        try image.run { () async throws(ImageToolError) in
            do {
                var structure = structure
                try await structure.clearAutoclearBitsDurably()
                let pass = try CheckPass(structure, mode: .fast)
                try await pass.run()
                if pass.report.isSound && !structure.header.needsCheck { return }
                guard structure.header.needsCheck, pass.report.crossLinks == 0, pass.report.unreadableTables == 0 else {
                    throw ImageOpenError.damaged(
                        invalidEntries: pass.report.invalidEntries + pass.report.unreadableTables,
                        crossLinkedClusters: pass.report.crossLinks)
                }
                _ = try await ImageCheck(path: path, repair: .all).run(on: structure)
            } catch {
                throw ImageToolError(path: path, structural: error)
            }
        }
        try image.reload()
        return image
    }

    /// The same for work that needs the backing files too. Whether these can be opened is tried first, so that nothing
    /// has been changed where they cannot.
    static func sound(
        path: String, withChainUnder policy: BackingPolicy
    ) throws(ImageToolError) -> OfflineImage {
        do throws(ChainError) {
            _ = try ImageChain.open(path: path, isReadOnly: true, caching: .buffered, locking: .none, policy: policy)
        } catch {
            throw .chain(error)
        }
        return try sound(path: path)
    }

    /// Reads the header and the length again, after the file was changed.
    func reload() throws(ImageToolError) {
        do throws(ImageFileError) {
            let size = try file.currentSizeBytes()
            let bytes = try file.readBytes(byteCount: QEDLimits.headerSizeBytes)
            do throws(QEDFormatError) {
                structure.header = try QEDHeader(parsing: bytes, fileSizeBytes: size)
            } catch {
                throw ImageFileError.changedWhileOpening(path: path)
            }
            structure.fileSizeBytes = size
        } catch {
            throw .read(.file(error))
        }
    }

    /// Runs work on the structure, and takes over what it has changed.
    func edit<Value: Sendable>(
        _ body: @escaping @Sendable (inout ImageStructure<FileStorage>) async throws -> Value
    ) throws(ImageToolError) -> Value {
        let before = structure
        let path = self.path
        let (value, after) = try run { () async throws(ImageToolError) -> (Value, ImageStructure<FileStorage>) in
            var structure = before
            do {
                let value = try await body(&structure)
                return (value, structure)
            } catch {
                throw ImageToolError(path: path, structural: error)
            }
        }
        structure = after
        return value
    }
}

extension ImageToolError {
    /// What work on a structure throws.
    init(path: String, structural error: any Error) {
        switch error {
        case let error as ImageToolError: self = error
        case let error as StorageError: self = .storage(path: path, error)
        case let error as ImageOpenError: self = .open(path: path, error)
        case let error as QEDFormatError: self = .refused(path: path, reason: error.fault)
        default: preconditionFailure("an error of an unknown type: \(error)")
        }
    }
}
