import BlockStorage
import CSupport
import Glibc
import IOURing
import QEDChain
import QEDEngine
import SystemPackage
import Ublk

/// What a device is to be: the options of `add`.
public struct ServerConfiguration: Sendable {
    /// Absolute: it is recorded, and the server's working directory is its own.
    public var imagePath: String
    public var isReadOnly = false
    /// For the backing files, which images name.
    public var backing = BackingPolicy.plainFiles
    /// The same as options of `add`, for the record: the device's next server gets them. Directories are absolute.
    public var backingArguments: [String] = []
    /// Hardware queues; the driver caps them to the number of processors.
    public var queues = defaultQueues
    /// Requests that a queue can have under way.
    public var queueDepth = defaultQueueDepth
    /// nil lets the driver choose.
    public var deviceID: UInt32?
    public var name: DeviceName?
    public var link: DeviceLink?
    /// Whether partitions on the disk become disks of their own.
    public var scansPartitions = true
    /// The image is an overlay that goes with the device.
    public var isThrowAway = false
    /// Nobody looks at what is on the disk by himself, udev among them.
    public var isUntrusted = false
    /// Serve the device `deviceID`, which waits for a server, instead of making one.
    public var recovers = false
    /// Serve the image even though what a dead server has acknowledged is lost: its log is not here.
    public var discardsLostSession = false
    /// Whether the device outlives its server.
    public var isRecoverable = true
    public var zeroCopy = ZeroCopyChoice.auto
    /// The size of the device's logical blocks; nil: 512 unless the image's partition table was made for others.
    public var blockSizeBytes: Int?
    /// For the tables of the image and its backing files.
    public var cacheBytes = ImageOptions.standardCacheBytes
    /// Keep in the image what is read from the bottom of the chain.
    public var keepsReads = false
    /// How much that takes, about, before what was kept first goes; nil: as much as there is. Of a disk that is only read.
    public var keepLimitBytes: UInt64?
    /// Of one of the two files that have it.
    var keptLimitBytes: UInt64? { keepLimitBytes.map { $0 / 2 } }
    /// The image is written: a disk that is only read may keep what it reads.
    var changesImage: Bool { !isReadOnly || keepsReads }
    /// A file that gets to know what is read from there, and one that tells what is to be fetched from there. Absolute; not for
    /// the device's next server.
    public var recordPath: String?
    public var prefetchPath: String?

    public init(imagePath: String) { self.imagePath = imagePath }

    /// How many queues a device can be asked to have, and requests in each; and the sizes of its blocks.
    public static let countLimits = 1...4096
    public static let blockSizes = [512, 4096]
    /// From what a few requests at once need to what maps 8 TiB in the usual geometry.
    public static let cacheLimits = 1 << 20...1 << 30
    /// From what a few tables need beside what is kept.
    public static let keepLimits: ClosedRange<UInt64> = 16 << 20...1 << 62

    /// As many as this process may use processors, and no more than the engine can feed.
    public static var defaultQueues: Int { min(Int(cs_available_processors()), 4) }

    public static let defaultQueueDepth = 64

    /// Of all I/O buffers: in memory where the driver copies, and at most with zero copy. More only with a depth that asks
    /// for it.
    static let bufferBudgetBytes = 32 << 20

    /// The largest request: the largest from 512 KiB down with which all buffers are within the budget, and no smaller than
    /// 64 KiB.
    var maxIOSizeBytes: Int {
        let tags = min(queues, max(sysconf(Int32(_SC_NPROCESSORS_CONF)), 1)) * queueDepth
        var size = 512 << 10
        while size > 64 << 10 && tags * size > ServerConfiguration.bufferBudgetBytes { size /= 2 }
        return size
    }

    /// What the driver is asked for. Requests that were under way when a server died are sent to the next one again: they
    /// were not acknowledged, and what they ask for does not depend on how often it is done.
    /// - Parameters:
    ///   - offered: what the driver can do, where it can be asked.
    ///   - takesPages: whether the image's file takes the pages of requests as they are.
    func features(offered: UblkFeatures?, takesPages: Bool) throws(ServerError) -> UblkFeatures {
        var features: UblkFeatures = isRecoverable ? [.ioctlEncoding, .userRecovery, .recoveryReissue] : .ioctlEncoding
        // The server has it done itself, and so knows when it is done.
        if offered?.contains(.noPartitionScan) == true { features.insert(.noPartitionScan) }
        if offered?.contains(.updateSize) == true { features.insert(.updateSize) }
        let isPossible = offered?.contains(.servesPages) == true
        switch zeroCopy {
        case .off: break
        case .auto:
            if isPossible && takesPages { features.insert(.servesPages) }
        case .on:
            guard isPossible else { throw .noZeroCopy }
            features.insert(.servesPages)
        }
        return features
    }
}

/// Whether the data of requests stays in the kernel's pages on its way to and from the image, as far as that is
/// possible.
public enum ZeroCopyChoice: String, CaseIterable, Sendable {
    /// Where the kernel can, and it pays: the image's file is accessed past the page cache, which is a copy in itself.
    case auto
    case on
    case off
}

/// Why a device could not be served. Nothing is left behind: no device, no lock, no file.
public enum ServerError: Error, CustomStringConvertible {
    case chain(ChainError)
    case image(path: String, ImageOpenError)
    case emptyImage(path: String)
    /// It was to keep what it reads from a file beneath it.
    case nothingToKeep(path: String)
    case clustersTooLargeToKeep(path: String)
    /// What it keeps was to be bounded.
    case notOnlyKept(path: String)
    case notMarked(String)
    case tooDeepToBound(path: String)
    case limitTooSmall(path: String, leastBytes: UInt64)
    /// The file that was to be told of what is read of a file beneath it.
    case nothingToRecord(path: String, recording: String)
    case reads(ReadRecordingError)
    /// The image or its file cannot be used in blocks of that size.
    case blockSize(path: String, reason: String)
    case control(UblkControlError)
    case characterDevice(UblkOpenError)
    case registry(RegistryError)
    case socket(ControlSocketError)
    case queue(number: Int, reason: String)
    case ring(Errno)
    case notUsable(path: String, Errno)
    case notRecoverable(id: UInt32)
    case isBusy(DeviceLockError)
    case nameTaken(DeviceName, id: UInt32)
    case link(path: String, Errno)
    case symlink(DeviceLinkError)
    case noZeroCopy
    /// An earlier takeover was, and this kernel would not survive another one.
    case cutShort(id: UInt32)
    /// By another program, while its device waited for a server.
    case imageWritten(path: String)
    case imageChanged(path: String, id: UInt32)
    /// What the server would use lies on the disk that it is to serve.
    case waitsForItself(what: String, id: UInt32)
    /// Than the device was made of.
    case anotherFile(path: String, id: UInt32)
    /// What the image was until its last snapshot, and what was answered is not all in it yet.
    case snapshotReplaced(path: String, image: String)
    /// The kernel's device is not that of the record, or there is none.
    case notOurs(id: UInt32)
    /// The device is gone, but not everything that was written has reached the image.
    case notClosed(path: String, Errno)
    /// The device is gone, by force, and not everything that its users had written had reached it. Why, in a sentence.
    case notWrittenBack(String)
    /// The server could not give up its rights.
    case notConfined(String, Errno)
    /// It would not be able to, and nothing was begun.
    case mayNotBeConfined
    /// What a confined server's broker has said, or what has become of it.
    case broker(String)

    public var description: String {
        switch self {
        case .chain(let error): "\(error)"
        case .image(let path, let error): "\(path): \(error)"
        case .nothingToKeep(let path):
            "\(path): lies over no raw file, and no base elsewhere, of which it could keep something; leave out --copy-on-read"
        case .clustersTooLargeToKeep(let path):
            "\(path): its clusters are too large to be kept when a part of one is read; leave out --copy-on-read, or make an "
                + "overlay with clusters of \(ImageOptions.largestKeptClusterBytes >> 10)K or less"
        case .notOnlyKept(let path):
            "\(path): may have something that its base has not, which --keep-limit would let go; make a new image for that, or "
                + "leave it out"
        case .notMarked(let sentence): sentence
        case .tooDeepToBound(let path):
            "\(path): lies over more than one file, and --keep-limit is for an image over a raw file, or a base elsewhere; "
                + "leave it out"
        case .limitTooSmall(let path, let leastBytes):
            "\(path): its tables leave no room to keep something; say --keep-limit \(leastBytes >> 20)M or more"
        case .nothingToRecord(let path, let recording):
            "\(path): lies over no raw file, and no base elsewhere, so there is nothing to record in \(recording); leave out "
                + "--record"
        case .reads(let error): "\(error)"
        case .emptyImage(let path): "\(path): its size is 0, and a block device cannot be empty; give it a size first"
        case .blockSize(let path, let reason): "\(path): \(reason)"
        case .control(let error): "\(error)"
        case .characterDevice(let error): "\(error)"
        case .registry(let error): "\(error)"
        case .socket(let error): "\(error)"
        case .queue(let number, let reason): "queue \(number) cannot be set up: \(reason)"
        case .ring(let errno):
            "\(RingRefusal.diagnosis(errno))"
        case .notUsable(let path, let errno):
            "\(path) was made but cannot be opened (\(errno)); see that this /dev is a devtmpfs"
        case .noZeroCopy:
            "\(DriverAbility.zeroCopy.lack); leave out '--zero-copy on'"
        case .cutShort(let id): "\(Takeover.cutShort(id))"
        case .isBusy(let error): "\(error)"
        case .nameTaken(let name, let id):
            "\(UblkPaths.blockDevice(id)) has the name \(name) already; give another one, or remove that device"
        case .link(let path, let errno): "cannot make the link \(path): \(errno)"
        case .symlink(let error): "\(error)"
        case .notRecoverable(let id):
            "\(UblkPaths.blockDevice(id)) was added with --no-recovery, so its end was its server's; remove it with 'qed-ublk "
                + "del \(id)' and add the image again"
        case .imageWritten(let path):
            "\(path): another program has written to it while its device waited for a server, so what uses the device would "
                + "find other data; remove the device ('qed-ublk del --force') and add the image again"
        case .imageChanged(let path, let id):
            "\(path): has another size than \(UblkPaths.blockDevice(id)) was made with; put it back, or "
                + "remove the device with 'qed-ublk del --force \(id)'"
        case .notConfined(let what, let errno):
            "the server cannot be confined: \(what) (\(errno)); without that an untrusted image is not served"
        case .mayNotBeConfined:
            "a server of --untrusted gives up its rights, for which it has to be root and to have CAP_SETUID and CAP_SETGID; in "
                + "a unit, write --untrusted into OPTIONS of /etc/qed-ublk/NAME.conf, and run 'systemctl daemon-reload'"
        case .broker(let sentence): "the server's broker: \(sentence)"
        case .notWrittenBack(let reason): "the device is gone, but some of what its users had written is lost: \(reason)"
        case .waitsForItself(let what, let id):
            "\(what) lies on \(UblkPaths.blockDevice(id)), which waits for this server: each would wait for the other; have it "
                + "lie elsewhere"
        case .anotherFile(let path, let id):
            "\(path): is not the file that \(UblkPaths.blockDevice(id)) was made of, so what uses the device would find other "
                + "data; put that file back in its place, or remove the device with 'qed-ublk del --force \(id)'"
        case .snapshotReplaced(let path, let image):
            "\(path): is not the file that \(image) was until its last snapshot, so what was written before that would be lost; "
                + "put that file back in its place"
        case .notOurs(let id):
            "\(UblkPaths.blockDevice(id)) is not a device of qed-ublk, or its record is lost; see 'qed-ublk list'"
        case .notClosed(let path, let errno):
            "\(path): the last writes did not reach the disk (\(errno)); the image will be checked when it is next opened"
        }
    }
}
