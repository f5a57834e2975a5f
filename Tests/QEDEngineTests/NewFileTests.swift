import SystemPackage
import TestSupport
import Testing

@testable import QEDChain
@testable import QEDEngine

@Suite("files that appear at once", .serialized) struct NewFileTests {
    static let methods: [NewFile.Method] = [.unnamed, .temporaryName]

    let directory: TemporaryDirectory
    let file: NewFile

    init() throws {
        directory = try TemporaryDirectory()
        file = NewFile(path: FilePath(directory.path("new")), firstBytes: [1, 2, 3], sizeBytes: 10)
    }

    @Test(arguments: methods)
    func appearsWhole(method: NewFile.Method) throws {
        try file.create(by: method)
        #expect(try directory.contents() == ["new": [1, 2, 3, 0, 0, 0, 0, 0, 0, 0]])
        let status = try Stat(file.path)
        #expect(status.permissions.subtracting([.ownerReadWrite, .groupRead, .otherRead]) == [])
        #expect(status.permissions.contains(.ownerReadWrite))
    }

    @Test(arguments: methods)
    func neverReplaces(method: NewFile.Method) throws {
        try writeFile(directory.path("new"), [9])
        #expect(throws: NewFile.Failure(step: .name, errno: .fileExists)) { try file.create(by: method) }
        #expect(try directory.contents() == ["new": [9]])
    }

    @Test(arguments: methods)
    func neverReplacesALink(method: NewFile.Method) throws {
        try require(["ln", "-s", "target", "new"], in: directory.path)
        #expect(throws: NewFile.Failure(step: .name, errno: .fileExists)) { try file.create(by: method) }
        #expect(try directory.contents() == ["new": nil])
    }

    /// A length that no file can have.
    @Test(arguments: methods)
    func failedWritesLeaveNothing(method: NewFile.Method) throws {
        let impossible = NewFile(path: file.path, firstBytes: [1], sizeBytes: -1)
        #expect(throws: NewFile.Failure(step: .write, errno: .invalidArgument)) { try impossible.create(by: method) }
        #expect(try directory.contents() == [:])
        // It is not a reason to try the other method.
        #expect(throws: NewFile.Failure(step: .write, errno: .invalidArgument)) { try impossible.create() }
    }

    @Test func onlyFileNamesAreCreated() throws {
        for path in ["/", "..", ".", "\(directory.path)/.."] {
            let misnamed = NewFile(path: FilePath(path), firstBytes: [], sizeBytes: 0)
            #expect(throws: NewFile.Failure(step: .create, errno: .fileExists)) { try misnamed.create() }
        }
    }

    /// What it took the place of is gone: the new one must not go too.
    @Test func aReplacementStaysWhenItsDirectoryCannotBeSynced() throws {
        try writeFile(directory.path("new"), [9])
        var replacement = file
        replacement.replacesExisting = true
        replacement.syncDirectory = { _ in -Errno.ioError.rawValue }
        #expect(throws: NewFile.Failure(step: .replace, errno: .ioError)) { try replacement.create() }
        #expect(try directory.contents() == ["new": [1, 2, 3, 0, 0, 0, 0, 0, 0, 0]])
    }

    @Test(arguments: methods)
    func aNewNameGoesWhenItsDirectoryCannotBeSynced(method: NewFile.Method) throws {
        var unsynced = file
        unsynced.syncDirectory = { _ in -Errno.ioError.rawValue }
        #expect(throws: NewFile.Failure(step: .sync, errno: .ioError)) { try unsynced.create(by: method) }
        #expect(try directory.contents() == [:])
    }

    /// Many at once for one name: one wins, whole, and the others leave nothing.
    @Test(arguments: methods)
    func oneOfManyWins(method: NewFile.Method) async throws {
        let path = file.path
        let winners = await withTaskGroup(of: UInt8?.self) { group in
            for number: UInt8 in 1...20 {
                group.addTask {
                    let contender = NewFile(path: path, firstBytes: [number], sizeBytes: 2)
                    return (try? contender.create(by: method)) == nil ? nil : number
                }
            }
            return await group.reduce(into: [UInt8]()) { winners, number in
                if let number { winners.append(number) }
            }
        }
        #expect(winners.count == 1)
        #expect(try directory.contents() == ["new": winners + [0]])
    }
}
