import Glibc
import Platform
import Testing

@testable import DeviceServer

/// What the server hears of a process that waits for its disk. That a server which is killed meanwhile ends, and the next one
/// serves, is in the scenarios.
struct OwnDiskProcessTests {
    private func pair() -> (reader: Int32, writer: Int32) {
        var ends: [Int32] = [-1, -1]
        #expect(pipe(&ends) == 0)
        return (ends[0], ends[1])
    }

    @Test func aProcessThatSaysNothingInTimeIsGivenUp() {
        let (reader, writer) = pair()
        #expect(OwnDiskProcess.readToEnd(reader, until: .now + .milliseconds(20)) == nil)
        // One that goes on talking too.
        #expect(write(writer, "a", 1) == 1)
        #expect(OwnDiskProcess.readToEnd(reader, until: .now + .milliseconds(20)) == nil)
        close(writer)
        #expect(OwnDiskProcess.readToEnd(reader, until: .now + .seconds(60)) == "")
        close(reader)
    }

    @Test func whatItSaysIsReadToItsEnd() throws {
        let (reader, writer) = pair()
        let speaker = try BackgroundThread {
            for _ in 0..<100 {
                #expect(write(writer, "0123456789", 10) == 10)
                usleep(100)
            }
            close(writer)
        }
        #expect(OwnDiskProcess.readToEnd(reader, until: nil)?.utf8.count == 1000)
        speaker.join()
        close(reader)
    }

    @Test func moreThanAnybodyReadsIsLeftOut() throws {
        let (reader, writer) = pair()
        let speaker = try BackgroundThread {
            let piece = [UInt8](repeating: 65, count: 4096)
            for _ in 0..<64 { _ = write(writer, piece, piece.count) }
            close(writer)
        }
        let count = OwnDiskProcess.readToEnd(reader, until: nil)?.utf8.count ?? 0
        #expect(count >= 65_536 && count < 65_536 + 4096)
        speaker.join()
        close(reader)
    }
}
