import Glibc
import Platform
import Testing

@testable import DeviceServer

@Suite("What a server and the service that sees who uses its disk say to each other")
struct UsersServiceTests {
    @Test("A question is read as it was written", arguments: [UsersQuestion.users(0), .users(.max), .writeBack(7)])
    func questions(question: UsersQuestion) {
        #expect(question.line.utf8.count < UsersQuestion.limitBytes)
        #expect(UsersQuestion(line: question.line) == question)
    }

    @Test(
        "Whatever else is asked is nothing",
        arguments: [
            "", " ", "users", "users ", "users  1", " users 1", "users 1 ", "users -1", "users +1", "users 0x1",
            "users 4294967296",
            "users 1 2",
            "users ١", "users /dev/sda", "users ublkb0", "users ../1", "users 1\0", "users 1\r", "Users 1", "1",
            "write-back", "write-back /mnt", "write-back 1;users 1", #"{"users":1}"#,
        ])
    func nonsense(line: String) {
        #expect(UsersQuestion(line: line) == nil)
    }

    @Test("An answer is read as it was written, and names users before what looks at a disk for its own server")
    func answers() throws {
        let own = DiskUse.Process(id: 2, name: "qed-ublk", isOwnDisk: true)
        let user = DiskUse.Process(id: 3, name: "a \"b\" \\")
        let answer = UsersAnswer(usedBy: [own, user])
        #expect(answer == .users(.init(processes: [user, own])))
        #expect(try Self.read("\(answer.json)", .users(1)) == answer)
        let unwritten = UsersAnswer(notWritten: ["what is mounted at /mnt cannot be written back: Input/output error"])
        #expect(try Self.read("\(unwritten.json)", .writeBack(1)) == unwritten)
        #expect(try Self.read("\(answer.json)", .writeBack(1)) == nil)
        #expect(try Self.read("\(unwritten.json)", .users(1)) == nil)
    }

    @Test("Of many users some are named, in a line that is not long")
    func many() throws {
        let users = (1...10_000).map { DiskUse.Process(id: $0, name: String(repeating: "\u{1}", count: 15)) }
        let answer = UsersAnswer(usedBy: users)
        guard case .users(let named) = answer else { throw Missing() }
        #expect(named.hasMore && !named.processes.isEmpty)
        #expect("\(answer.json)".utf8.count < 4096)
        let sentences = UsersAnswer(notWritten: users.map { _ in String(repeating: "\u{1}", count: 10_000) })
        #expect("\(sentences.json)".utf8.count < 65_536)
    }

    @Test(
        "Anything else is no answer",
        arguments: [
            "null", "[]", "{}", #"{"users":[]}"#, #"{"more":false}"#, #"{"users":{},"more":false}"#,
            #"{"users":[1],"more":false}"#,
            #"{"users":[{}],"more":false}"#, #"{"users":[{"process":0,"name":"x","own-disk":false}],"more":false}"#,
            #"{"users":[{"process":1,"name":"x"}],"more":false}"#, #"{"users":[{"process":1,"own-disk":true}],"more":false}"#,
            #"{"users":[{"process":4294967297,"name":"x","own-disk":false}],"more":false}"#, #"{"users":[],"more":0}"#,
            #"{"users":[],"more":"#, "garbage", #"{"unwritten":[1]}"#, #"{"unwritten":"x"}"#,
        ])
    func noAnswer(line: String) throws {
        for question in [UsersQuestion.users(1), .writeBack(1)] {
            #expect(JSONValue(parsing: line).flatMap { UsersAnswer($0, to: question) } == nil)
        }
    }

    @Test("More processes than are ever named are no answer, nor is a name that no process has")
    func tooMuch() throws {
        let user = #"{"process":1,"name":"x","own-disk":false}"#
        let list = Array(repeating: user, count: 17).joined(separator: ",")
        #expect(try Self.read(#"{"users":[\#(list)],"more":true}"#, .users(1)) == nil)
        let name = String(repeating: "x", count: 65)
        #expect(try Self.read(#"{"users":[{"process":1,"name":"\#(name)","own-disk":false}],"more":false}"#, .users(1)) == nil)
    }

    @Test("Where nobody listens there is no answer, and a disk may be in use")
    func nobody() {
        #expect(UsersService.ask(.users(1), at: "/nonexistent/users.sock", within: .seconds(1)) == nil)
        let use = DiskUse.unseen("/dev/ublkb1")
        #expect(use.mayPass)
        #expect(
            "\(use), or use --force"
                == "/dev/ublkb1 may be in use: it cannot be seen who has it open, because qed-ublk-users.socket does not answer; "
                + "start it, or use --force")
    }

    @Test("Its own capabilities tell whether it has to ask", arguments: [("80000", true), ("7ffff", false), ("x", true)])
    func capability(effective: String, maySeeAll: Bool) {
        #expect(ThreadCapabilities.Fields(Array("CapEff:\t\(effective)\n".utf8)).maySeeAll == maySeeAll)
    }

    private struct Missing: Error {}

    private static func read(_ line: String, _ question: UsersQuestion) throws -> UsersAnswer? {
        UsersAnswer(try #require(JSONValue(parsing: line)), to: question)
    }
}
