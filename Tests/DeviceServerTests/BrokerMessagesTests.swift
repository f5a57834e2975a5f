import Platform
import Testing

@testable import DeviceServer

/// What a confined server and its broker say to each other.
@Suite struct BrokerMessagesTests {
    @Test(
        "a request is read as it was written",
        arguments: [
            BrokerRequest.stop(force: true, timeoutSeconds: 0), .stop(force: false, timeoutSeconds: 86_400), .isMachineGoingDown,
            .flushDisk, .note(.failed), .note(.goesWhenUnused), .note(.left(nil)),
            .note(.left(ImageMark(sizeBytes: 1 << 40, writtenAt: -5))), .forgetDevice(isClosed: true),
            .forgetDevice(isClosed: false), .start, .endRecovery, .note(.access(isDirect: true)), .askSize,
            .grow(toBytes: 1 << 40), .note(.grows(toBytes: 512)), .note(.grows(toBytes: nil)),
            .describe(DiskShape(sizeBytes: 1 << 40, blockSizeBytes: 4096, clusterSizeBytes: 1 << 26)),
        ])
    func requests(request: BrokerRequest) throws {
        let line = "\(request.json)"
        #expect(!line.contains("\n") && line.utf8.count < Broker.lineLimitBytes)
        #expect(BrokerRequest(try #require(JSONValue(parsing: line))) == request)
    }

    @Test(
        "a reply is read as it was written",
        arguments: [
            BrokerReply.done, .size(0), .size(.max), .inUse("/dev/ublkb0 is in use by \"x\"\n"), .isGoingDown(true),
            .isGoingDown(false), .sentences([]),
            .sentences(["a", "b"]), .forgotten(.init(number: true, unwritten: nil)),
            .forgotten(.init(number: false, unwritten: "x")),
            .failed("why"),
        ])
    func replies(reply: BrokerReply) throws {
        let line = "\(reply.json)"
        #expect(!line.contains("\n"))
        #expect(BrokerReply(try #require(JSONValue(parsing: line))) == reply)
    }

    @Test(
        "whatever else a server says, that has been taken over, is nothing",
        arguments: [
            "{}", "[]", "null", "\"stop\"", #"{"do":"stop"}"#, #"{"do":"stop","force":true,"timeout":-1}"#,
            #"{"do":"stop","force":true,"timeout":86401}"#, #"{"do":"stop","force":1,"timeout":1}"#,
            #"{"do":"open","path":"/etc/shadow"}"#, #"{"do":"forget"}"#, #"{"do":"note-left"}"#, #"{"do":["stop"]}"#,
            #"{"do":"grow"}"#, #"{"do":"grow","size":1000}"#, #"{"do":"note-size"}"#, #"{"do":"note-size","size":"x"}"#,
            #"{"do":"note-access"}"#, #"{"do":"describe"}"#,
            #"{"do":"describe","size":1000,"block-size":512,"cluster-size":65536}"#,
            #"{"do":"describe","size":0,"block-size":512,"cluster-size":65536}"#,
            #"{"do":"describe","size":18446744073709551104,"block-size":512,"cluster-size":65536}"#,
            #"{"do":"describe","size":1024,"block-size":8192,"cluster-size":65536}"#,
            #"{"do":"describe","size":1024,"block-size":512,"cluster-size":0}"#,
            #"{"do":"describe","size":1024,"block-size":512,"cluster-size":65537}"#,
            #"{"do":"describe","size":1024,"block-size":512,"cluster-size":134217728}"#,
        ])
    func nonsense(line: String) throws {
        #expect(BrokerRequest(try #require(JSONValue(parsing: line))) == nil)
    }
}
