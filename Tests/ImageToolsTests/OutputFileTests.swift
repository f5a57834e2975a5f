import Foundation
import QEDEngine
import SystemPackage
import TestSupport
import Testing

@testable import ImageTools

@Suite struct OutputFileTests {
    /// It is complete, and what it replaces is gone: it stays, and the error says so.
    @Test(arguments: [true, false])
    func aFileStaysWhenItsDirectoryCannotBeSynced(replaces: Bool) throws {
        let directory = try TemporaryDirectory()
        let path = directory.path("file")
        if replaces { try writeFile(path, [9]) }
        let output = try OutputFile(path: path, replaces: replaces)
        output.syncDirectory = { _ in -Errno.ioError.rawValue }
        try output.fill([1, 2], sizeBytes: 3)
        do throws(ImageToolError) {
            try output.publish()
            Issue.record("it counts as durable")
        } catch {
            #expect("\(error)".contains(replaces ? "the old one may be back" : "it may have no name"))
        }
        #expect(try directory.contents() == ["file": [1, 2, 0]])
    }
}
