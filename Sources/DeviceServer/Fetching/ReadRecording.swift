import CSupport
import Glibc
import Platform
import QEDEngine
import SystemPackage

/// What was read from the bottom of a device's chain, as `add --record` writes it down, and in which order: text (docs/bases.md).
///
///     qed-ublk-reads 1 SIZE
///     MILLISECONDS OFFSET LENGTH
package struct ReadRecording: Equatable, Sendable {
    /// Of the disk, in bytes.
    package var diskSizeBytes: UInt64
    package var reads: [RecordedRead] = []

    package init(diskSizeBytes: UInt64, reads: [RecordedRead] = []) {
        self.diskSizeBytes = diskSizeBytes
        self.reads = reads
    }

    package var ranges: [Range<UInt64>] { reads.map(\.range) }

    private static let format = "qed-ublk-reads"
    private static let version = "1"
    /// A line has three numbers of twenty digits at most.
    private static let longestLineBytes = 63
    package static let limitBytes = (RecordedReads.limit + 1) * longestLineBytes

    static func firstLine(diskSizeBytes: UInt64) -> String { "\(format) \(version) \(diskSizeBytes)\n" }

    static func line(_ read: RecordedRead) -> String {
        "\(read.milliseconds) \(read.range.lowerBound) \(read.range.count)\n"
    }

    /// Reads what was written. A last line without an end is left out: whoever wrote it was killed.
    package init(parsing bytes: [UInt8]) throws(ReadRecordingFault) {
        guard bytes.count <= Self.limitBytes else { throw .tooLong }
        guard let end = bytes.lastIndex(of: UInt8(ascii: "\n")) else { throw .isNone }
        var lines = bytes[..<end].split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)[...]
        let first = lines.popFirst().map { String(decoding: $0, as: UTF8.self).split(separator: " ") } ?? []
        guard first.count == 3, first[0] == Self.format else { throw .isNone }
        guard first[1] == Self.version else { throw .version }
        guard let size = Self.number(first[2].utf8), size > 0 else { throw .isNone }
        guard lines.count <= RecordedReads.limit else { throw .tooLong }
        diskSizeBytes = size
        reads.reserveCapacity(lines.count)
        for (index, line) in lines.enumerated() {
            let words = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            guard words.count == 3, let milliseconds = Self.number(words[0]), let offset = Self.number(words[1]),
                let length = Self.number(words[2]), length > 0
            else { throw .line(index + 2) }
            guard offset < size, length <= size - offset else { throw .outsideDisk(line: index + 2) }
            reads.append(RecordedRead(milliseconds: milliseconds, range: offset..<offset + length))
        }
    }

    /// Decimal digits, and nothing else.
    private static func number(_ digits: some Collection<UInt8>) -> UInt64? {
        guard !digits.isEmpty, digits.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else { return nil }
        return UInt64(String(decoding: digits, as: UTF8.self))
    }

    /// Reads the file of that name.
    package init(ofFileAt path: String) throws(ReadRecordingError) {
        // Not to wait for who writes to a pipe.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw ReadRecordingError(path: path, .cannotRead(Errno(rawValue: errno))) }
        let file = FileDescriptor(rawValue: descriptor)
        defer { try? file.close() }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw ReadRecordingError(path: path, .isNone)
        }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while bytes.count <= Self.limitBytes {
            let count: Int
            do { count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) } } catch {
                throw ReadRecordingError(path: path, .cannotRead(error as? Errno ?? .ioError))
            }
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        do throws(ReadRecordingFault) { try self.init(parsing: bytes) } catch { throw ReadRecordingError(path: path, error) }
    }

    /// - Parameter path: for the sentence.
    package func expect(diskSizeBytes: UInt64, path: String) throws(ReadRecordingError) {
        guard self.diskSizeBytes == diskSizeBytes else {
            throw ReadRecordingError(path: path, .ofAnotherSize(self.diskSizeBytes, disk: diskSizeBytes))
        }
    }
}

/// What is wrong with a recording, or its file.
package enum ReadRecordingFault: Error, Equatable {
    case isNone
    case version
    case tooLong
    case line(Int)
    case outsideDisk(line: Int)
    case ofAnotherSize(UInt64, disk: UInt64)
    case cannotRead(Errno)
    /// To be written to, it has to be empty or absent.
    case hasContent
    case cannotWrite(Errno)
}

/// The same in a sentence.
public struct ReadRecordingError: Error, CustomStringConvertible {
    package let path: String
    package let fault: ReadRecordingFault

    init(path: String, _ fault: ReadRecordingFault) {
        (self.path, self.fault) = (path, fault)
    }

    public var description: String {
        switch fault {
        case .isNone: "\(path): is no recording of 'add --record'"
        case .version: "\(path): is a recording of another version of qed-ublk; record a start once more"
        case .tooLong: "\(path): is longer than a recording can be (\(RecordedReads.limit) ranges)"
        case .line(let number):
            "\(path): line \(number) is not three numbers (milliseconds, offset, length), so it is no recording"
        case .outsideDisk(let number):
            "\(path): line \(number) names a range outside the disk that the first line tells of; it is no recording"
        case .ofAnotherSize(let size, let disk):
            "\(path): was recorded of a disk of \(size) bytes, and this one has \(disk); record a start of this one"
        case .cannotRead(let errno): "\(path): cannot be read: \(errno)"
        case .hasContent: "\(path): is not empty, and nothing is written over it; name another file, or remove it"
        case .cannotWrite(let errno): "\(path): cannot be made, or written to: \(errno)"
        }
    }
}
