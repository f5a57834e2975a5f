import ArgumentParser
import BlockStorage
import DeviceServer
import ImageTools
import Platform
import QEDChain
import QEDEngine
import SystemPackage
import Ublk

/// An error that says what it means for the exit status. Its description is one sentence for the user.
protocol ReportableError: Error, CustomStringConvertible {
    var exitStatus: ExitStatus { get }
}

extension ExitStatus {
    /// Of whatever was thrown, the argument parser's own errors left out.
    init(after error: any Error) { self = (error as? any ReportableError)?.exitStatus ?? .failure }
}

extension QedUblk {
    /// Ends the process after `error`: one sentence to standard error, and the exit status that goes with it. Help and
    /// version, which the argument parser throws as well, go to standard output with status 0.
    static func exit(after error: any Error) -> Never {
        if let error = error as? any ReportableError {
            printError("\(error)")
            exit(withError: ExitCode(error.exitStatus.rawValue))
        }
        if exitCode(for: error) == .validationFailure {
            // Some of the parser's messages end in a full stop.
            var message = message(for: error)
            if message.last == "." { message.removeLast() }
            printError("\(message); see 'qed-ublk --help'")
            exit(withError: ExitCode(ExitStatus.usage.rawValue))
        }
        // Whatever else went wrong is told in one sentence too, and not in the parser's way.
        if exitCode(for: error) == .failure, !(error is ExitCode) {
            printError("\(error)")
            exit(withError: ExitCode(ExitStatus.failure.rawValue))
        }
        exit(withError: error)
    }
}

/// Writes a sentence to standard error, as one line whatever characters it holds.
func printError(_ sentence: String) {
    // There is nowhere left to report that this failed.
    _ = try? FileDescriptor.standardError.writeAll("qed-ublk: \(sentence.printable)\n".utf8)
}

/// Writes the result of a command to standard output.
func printOutput(_ text: String) throws(OutputError) {
    do {
        try FileDescriptor.standardOutput.writeAll("\(text)\n".utf8)
    } catch {
        throw OutputError(errno: error as? Errno ?? .ioError)
    }
}

/// Standard output does not take what is written to it.
struct OutputError: ReportableError {
    let errno: Errno

    var exitStatus: ExitStatus { .failure }
    var description: String { "cannot write to standard output: \(errno)" }
}

// MARK: - What errors mean

extension ImageFileError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .notFound: .notFound
        case .noPermission: .noPermission
        case .notARegularFile, .blockDevice, .outsideDirectories, .baseNotAllowed: .unusableImage
        case .notADirectory: .usage
        case .inUse, .belongs, .changedWhileOpening: .busy
        case .cannotLock, .cannotOpen, .cannotRead, .cannotTellWhere, .baseUnusable: .failure
        }
    }
}

extension ImageReadError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .file(let error): error.exitStatus
        case .format: .unusableImage
        }
    }
}

extension ImageCreationError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .alreadyExists, .unfinishedSession: .busy
        case .cannotReplace(let error): error.exitStatus
        case .sizeMissing, .cannotBeDescribed, .qemuCannotOpen, .backingName, .baseAddress: .usage
        case .backingFile(let error): error.exitStatus
        case .directoryNotFound: .notFound
        case .noPermission: .noPermission
        case .failed: .failure
        }
    }
}

extension ChainError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .image(let error, _): error.exitStatus
        case .unfinishedSession: .busy
        case .backingFormatUnknown, .backingName, .backingAddress, .backingRefused, .loop, .tooLong, .tablesTooLarge:
            .unusableImage
        }
    }
}

extension ImageOpenError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .storage: .failure
        case .damaged, .tooLargeToCheck, .tablesInHoles, .sessionLost: .unusableImage
        case .noCache: .failure
        case .unfinishedSession, .logNotHere: .busy
        }
    }
}

extension ImageToolError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .read(let error): error.exitStatus
        case .chain(let error): error.exitStatus
        case .open(_, let error): error.exitStatus
        case .cannotCreate(let error): error.exitStatus
        case .exists: .busy
        case .refused: .usage
        case .corruptEntry: .unusableImage
        case .storage, .request, .noRing, .verificationFailed: .failure
        }
    }
}

extension ServerError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .chain(let error): error.exitStatus
        case .image(_, let error): error.exitStatus
        case .emptyImage, .imageChanged, .imageWritten, .anotherFile, .snapshotReplaced, .blockSize, .nothingToKeep,
            .clustersTooLargeToKeep, .notOnlyKept, .tooDeepToBound, .limitTooSmall, .nothingToRecord:
            .unusableImage
        case .notRecoverable, .notOurs: .notFound
        case .isBusy, .nameTaken: .busy
        case .mayNotBeConfined: .noPermission
        case .reads(let error): error.exitStatus
        case .link(_, let errno): ExitStatus(errno: errno).ofMachine
        case .symlink(let error): error.exitStatus
        case .control(let error): error.exitStatus
        case .waitsForItself: .usage
        // Missing nodes and directories are the machine's, which may have them the next moment: only a file that was named
        // is "not found", and what starts servers need not try again.
        case .characterDevice(let error): ExitStatus(errno: error.errno).ofMachine
        case .registry(let error): error.exitStatus.ofMachine
        case .socket(let error): error.exitStatus.ofMachine
        case .queue, .ring, .notUsable, .notClosed, .notWrittenBack, .noZeroCopy, .cutShort, .notConfined,
            .notMarked, .broker:
            .failure
        }
    }
}

extension DeviceLinkError: ReportableError {
    var exitStatus: ExitStatus {
        switch fault {
        case .exists, .isAnothers: .busy
        case .cannotMake(let errno): ExitStatus(errno: errno)
        }
    }
}

extension ReadRecordingError: ReportableError {
    var exitStatus: ExitStatus {
        switch fault {
        case .cannotRead(let errno), .cannotWrite(let errno): ExitStatus(errno: errno)
        case .hasContent: .busy
        case .isNone, .version, .tooLong, .line, .outsideDisk, .ofAnotherSize: .failure
        }
    }
}

extension UblkControlError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .noDriver: .noUblk
        case .notPermitted: .noPermission
        case .refused(_, _, let errno): ExitStatus(errno: errno)
        case .outOfRange: .usage
        case .cannotOpen, .ringUnavailable, .invalidParameters, .featureMissing, .wrongState, .timedOut: .failure
        }
    }
}

extension DeviceRequirements.ProcMissing: ReportableError {
    var exitStatus: ExitStatus { .failure }
}

extension DeviceReferenceError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .notFound: .notFound
        case .ambiguous: .usage
        }
    }
}

extension RemovalError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .gone: .notFound
        case .served, .unreachable: .busy
        case .refused(let isBusy, _): isBusy ? .busy : .failure
        }
    }
}

extension FreezeError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .notOfDisk: .usage
        case .cannot(_, .resourceBusy): .busy
        case .cannot(_, .notPermitted), .cannot(_, .permissionDenied): .noPermission
        case .cannot: .failure
        }
    }
}

extension ForkError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .exists: .busy
        case .noDirectory(_, .noSuchFileOrDirectory), .noDirectory(_, .notDirectory): .notFound
        case .noDirectory(_, .permissionDenied): .noPermission
        case .noDirectory: .failure
        case .noClone(_, let reason): ExitStatus(after: reason)
        }
    }
}

extension ServerRefusal: ReportableError {
    var exitStatus: ExitStatus {
        switch code {
        case .busy: .busy
        case .badRequest: .usage
        case .failed, .unavailable: .failure
        }
    }
}

extension WaitingDeviceError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .isAnother, .isServed, .replaced: .busy
        case .notFound, .cannotWait, .orphan: .notFound
        }
    }
}

extension ServerStartError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .refused(let status, _): ExitStatus(rawValue: status) ?? .failure
        case .noLog(let error): error.exitStatus
        case .cannotStart, .died, .killed, .timedOut, .keepsDying: .failure
        }
    }
}

extension ServeArgumentError: ReportableError {
    var exitStatus: ExitStatus { .usage }
}

extension BackingArgumentError: ReportableError {
    var exitStatus: ExitStatus { .failure }
}

extension DeviceLockError: ReportableError {
    var exitStatus: ExitStatus { .busy }
}

extension RegistryError: ReportableError {
    var exitStatus: ExitStatus { ExitStatus(errno: errno) }
}

extension ControlSocketError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .notPermitted: .noPermission
        case .notServed, .noSocket: .notFound
        default: .failure
        }
    }
}

extension ExitStatus {
    /// The same of what nobody has named.
    var ofMachine: ExitStatus { self == .notFound ? .failure : self }

    /// What an errno means where nothing more is known.
    init(errno: Errno) {
        switch errno {
        case .permissionDenied, .notPermitted: self = .noPermission
        case .resourceBusy, .fileExists: self = .busy
        case .noSuchFileOrDirectory, Errno(rawValue: 19): self = .notFound
        default: self = .failure
        }
    }
}

extension BaseCacheError: ReportableError {
    var exitStatus: ExitStatus {
        switch self {
        case .notFound, .notACache: .notFound
        case .isOverAnother, .hasMore: .busy
        case .noDirectory, .notRemoved: .failure
        }
    }
}
