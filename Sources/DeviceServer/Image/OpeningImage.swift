import Logging

/// An image on its way from its files to a session: whichever it has come to is closed where the way ends early.
final class OpeningImage {
    private let files: ImageFiles
    private var session: ImageSession?

    init(_ files: ImageFiles) { self.files = files }

    /// Reads the tables, and tells what was found. Once.
    func open(_ log: Logger) throws(ServerError) -> ImageSession {
        precondition(session == nil, "an image is opened once")
        let opened = try ImageSession(files)
        session = opened
        opened.reportReplay(to: log)
        opened.watchBase(log)
        return opened
    }

    /// - Returns: whether nothing is left to be replayed of what was acknowledged, beyond what others had left; and how the image
    ///   was left, if it was opened and could be closed.
    func close() -> (isClosed: Bool, mark: ImageMark?) {
        guard let session else {
            files.abandon()
            return (files.sessionFile?.isNew ?? true, nil)
        }
        do throws(ServerError) { return (true, try session.close()) } catch { return (false, nil) }
    }
}
