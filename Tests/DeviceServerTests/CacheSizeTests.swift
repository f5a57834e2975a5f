import QEDChain
import QEDEngine
import TestSupport
import Testing

@testable import DeviceServer

/// `--cache-size` reaches the engine, and memory that cannot be had is an error, not the end of the program.
@Suite struct CacheSizeTests {
    @Test func moreThanThereIs() throws {
        let directory = try TemporaryDirectory()
        _ = try ImageCreation(path: directory.path("x.qed"), sizeBytes: 1 << 20).create()
        var configuration = ServerConfiguration(imagePath: directory.path("x.qed"))
        configuration.isReadOnly = true
        try ImageSession(configuration).close()
        configuration.cacheBytes = 1 << 60
        let error = try #require(throws: ServerError.self) { try ImageSession(configuration) }
        guard case .image(_, .noCache(let sizeBytes, _)) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(sizeBytes == 1 << 60)
        #expect("\(error)".contains("--cache-size"))
    }
}
