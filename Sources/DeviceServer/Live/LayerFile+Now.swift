import BlockStorage
import QEDChain
import QEDEngine
import QEDFormat

extension LayerFile {
    var isQED: Bool { if case .qed = layer { true } else { false } }

    /// A file of a chain that is served, opened once more and without a lock: it has grown since the device was made if it has
    /// been the image meanwhile, or has taken others in.
    func asItIsNow() throws(LayerFileError) -> LayerFile {
        guard isQED else { return self }
        do throws(ImageReadError) {
            let now: ImageFile
            do throws(ImageFileError) {
                now = try ImageFile(path: file.path, access: .readOnly, caching: .buffered, lock: nil)
            } catch {
                throw .file(error)
            }
            guard now.identity == file.identity else { throw ImageReadError.file(.changedWhileOpening(path: file.path)) }
            return LayerFile(file: now, layer: .qed(header: try ImageHeader(reading: now).header, fileSizeBytes: now.sizeBytes))
        } catch {
            throw LayerFileError(description: "\(error)")
        }
    }
}

/// Why a file of a chain could not be looked at, in a sentence.
struct LayerFileError: Error, CustomStringConvertible {
    let description: String
}
