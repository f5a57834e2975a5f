import BlockStorage
import CSupport
import Glibc
import Platform
import QEDChain
import QEDFormat
import SystemPackage

/// The names of a snapshot's two files. The overlay is made under the snapshot's name; then it and the image, which is the
/// snapshot from then on, get each other's names, in one step: killed or without power at any moment, the image's name leads to
/// the newest state that there is, and to nothing else.
///
/// Or both keep theirs, and the device's image has another name from then on: the device's record tells the next server, and
/// after a power cut the user has to know it.
final class SnapshotNames: Sendable {
    /// Where the image's name really is, symbolic links followed: they stay. That of the overlay, where the files keep theirs.
    let imagePath: String
    let snapshotPath: String
    /// The files get each other's names.
    let areExchanged: Bool
    /// Where the overlay is made.
    var overlayPath: String { areExchanged ? snapshotPath : imagePath }
    /// By which path the image is served: names of backing files start at its directory, symbolic link or not.
    private let servedPath: String
    // Open as long as this exists.
    private let imageDirectory: Int32
    private let snapshotDirectory: Int32

    /// - Parameters:
    ///   - image: the image's file, and by which path it is served.
    ///   - snapshotPath: absolute.
    convenience init(of image: ImageFile, at path: String, snapshotPath: String) throws(SnapshotError) {
        let imagePath: String
        do throws(ImageFileError) { imagePath = try AbsolutePath.ofReplaced(path, openedAs: image) } catch {
            throw .cannot("\(error)")
        }
        try self.init(imagePath, snapshotPath, servedPath: path, areExchanged: true)
        // The exchange would say so too, but only when everything else was done.
        guard SnapshotNames.device(of: imageDirectory) == SnapshotNames.device(of: snapshotDirectory) else { throw isElsewhere }
    }

    /// Both files keep their names.
    /// - Parameters:
    ///   - overlayPath: absolute.
    ///   - path: by which the image is served, whose file is the snapshot then.
    convenience init(ofOverlayAt overlayPath: String, overImageAt path: String) throws(SnapshotError) {
        try self.init(overlayPath, path, servedPath: overlayPath, areExchanged: false)
    }

    private init(
        _ imagePath: String, _ snapshotPath: String, servedPath: String, areExchanged: Bool
    ) throws(SnapshotError) {
        self.imagePath = imagePath
        self.snapshotPath = snapshotPath
        self.servedPath = servedPath
        self.areExchanged = areExchanged
        let first = SnapshotNames.openDirectory(of: imagePath)
        guard first >= 0 else { throw .cannot("the directory of \(imagePath) cannot be opened: \(Errno(rawValue: -first))") }
        let second = SnapshotNames.openDirectory(of: snapshotPath)
        guard second >= 0 else {
            close(first)
            throw .cannot("the directory of \(snapshotPath) cannot be opened: \(Errno(rawValue: -second))")
        }
        (imageDirectory, snapshotDirectory) = (first, second)
    }

    private var isElsewhere: SnapshotError {
        .cannot("\(snapshotPath) is on another file system than \(imagePath); give the snapshot a name on that one")
    }

    private static func device(of descriptor: Int32) -> UInt64? {
        var status = cs_file_status()
        return cs_status_of(descriptor, &status) == 0 ? status.device : nil
    }

    deinit {
        close(imageDirectory)
        close(snapshotDirectory)
    }

    private static func openDirectory(of path: String) -> Int32 {
        let directory = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        return descriptor < 0 ? -errno : descriptor
    }

    private static func name(in path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

    /// What the overlay says of where the snapshot is: from its own directory, where both are in the same, so that both can be
    /// moved together.
    var backingName: String { sharesDirectory ? SnapshotNames.name(in: snapshotPath) : snapshotPath }

    /// What an image by these names says of where another file is.
    func backingName(of path: String) -> String {
        let name = SnapshotNames.backingName(of: path, from: imagePath)
        return SnapshotNames.directoryIdentity(of: servedPath) == SnapshotNames.directoryIdentity(of: imagePath) ? name : path
    }

    /// Whether a relative name leads from the snapshot to where it leads from the image, by the path that it is served by.
    private var sharesDirectory: Bool {
        guard let ofServed = SnapshotNames.directoryIdentity(of: servedPath) else { return false }
        return ofServed == SnapshotNames.directoryIdentity(of: snapshotPath)
            && ofServed == SnapshotNames.directoryIdentity(of: imagePath)
    }

    /// How an image stores the name of a file: without the directory where both are in the same one.
    static func backingName(of path: String, from image: String) -> String {
        let isBeside = directoryIdentity(of: path).map { $0 == directoryIdentity(of: image) } ?? false
        return isBeside ? name(in: path) : path
    }

    private static func directoryIdentity(of path: String) -> FileIdentity? {
        let descriptor = openDirectory(of: path)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return try? FileIdentity(descriptor: descriptor)
    }

    /// The image keeps what its header says of its own backing file when it becomes the snapshot: it must still be true then.
    func checkBackingName(of image: ImageFile) throws(SnapshotError) {
        let name: BackingFileName?
        do throws(ImageReadError) { name = try ImageHeader(reading: image).backingFileName } catch {
            throw .cannot("\(error)")
        }
        guard let name, !name.isAbsolute, !sharesDirectory else { return }
        throw .cannot(
            "\(servedPath) names its backing file \(name.text) from its own directory, and would not find it from that of "
                + "\(snapshotPath); give the snapshot a name in the same directory, or the base an absolute one "
                + "(qed-ublk rebase -u)"
        )
    }

    /// The step. Nobody else may have changed either name meanwhile.
    func exchange(image: FileIdentity, overlay: FileIdentity) throws(SnapshotError) {
        precondition(areExchanged, "names are exchanged that stay")
        guard FileIdentity(ofFileAt: imagePath) == image else {
            throw .cannot("\(imagePath) is not the file that the device was made of any more")
        }
        guard FileIdentity(ofFileAt: snapshotPath) == overlay else {
            throw .cannot("\(snapshotPath) was replaced meanwhile")
        }
        let result = cs_exchange_names(
            imageDirectory, SnapshotNames.name(in: imagePath), snapshotDirectory, SnapshotNames.name(in: snapshotPath))
        switch Errno(rawValue: -result) {
        case Errno(rawValue: 0): return
        case .improperLink: throw isElsewhere
        case .invalidArgument, .noFunction:
            throw .cannot("the file system of \(imagePath) cannot exchange two names, which a snapshot needs")
        case let errno: throw .cannot("\(imagePath) and \(snapshotPath) cannot get each other's names: \(errno)")
        }
    }

    /// Makes the names durable. Blocks.
    func sync() -> Errno? {
        SnapshotNames.sync(snapshotDirectory) ?? SnapshotNames.sync(imageDirectory)
    }

    private static func sync(_ directory: Int32) -> Errno? {
        let result = cs_fsync(directory)
        // Some network file systems cannot sync one, and say so.
        return result < 0 && Errno(rawValue: -result) != .invalidArgument ? Errno(rawValue: -result) : nil
    }

    /// Makes the names of files durable: where they really are, symbolic links followed.
    static func sync(ofFilesAt paths: [String]) throws(Errno) {
        try sync(
            directoriesOf: paths.map { path throws(Errno) in
                guard let real = try? AbsolutePath.ofDirectory(path) else { throw .noSuchFileOrDirectory }
                return real
            })
    }

    /// The same of files that are gone, or are in the directories of their paths for certain.
    static func sync(directoriesOf paths: [String]) throws(Errno) {
        for path in paths {
            let directory = openDirectory(of: path)
            guard directory >= 0 else { throw Errno(rawValue: -directory) }
            defer { close(directory) }
            if let errno = sync(directory) { throw errno }
        }
    }
}

/// Why there is no snapshot, in a sentence; or why it is not durable yet.
enum SnapshotError: Error, CustomStringConvertible {
    case cannot(String)
    case exists(String)
    case busy(String)

    var description: String {
        switch self {
        case .cannot(let sentence), .busy(let sentence): sentence
        case .exists(let path): "\(path): exists already; give the snapshot another name"
        }
    }

    var reply: ControlReply {
        switch self {
        case .cannot: .failure(.failed, description)
        case .exists, .busy: .failure(.busy, description)
        }
    }
}
