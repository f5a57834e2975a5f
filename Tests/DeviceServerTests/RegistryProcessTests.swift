import Glibc
import Testing

@testable import DeviceServer

struct RegistryProcessTests {
    @Test func thisProcessRuns() throws {
        let current = try #require(ProcessIdentity.current)
        #expect(current.id == getpid())
        #expect(current.startTicks > 0)
        #expect(current.isRunning)
    }

    @Test func laterProcessOfTheSameIdIsAnother() throws {
        var recycled = try #require(ProcessIdentity.current)
        recycled.startTicks -= 1
        #expect(!recycled.isRunning)
    }

    @Test(arguments: [Int32(0), -1, .min, .max])
    func idsOfNobodyDoNotRun(id: Int32) {
        #expect(ProcessIdentity(running: id) == nil)
        #expect(!ProcessIdentity(id: id, startTicks: 0).isRunning)
    }

    /// A server that has ended and is not yet reaped holds no file any more.
    @Test func zombieDoesNotRun() throws {
        var child: pid_t = 0
        let path = "/bin/cat"
        var input: [Int32] = [0, 0]
        try #require(pipe(&input) == 0)
        _ = fcntl(input[1], F_SETFD, FD_CLOEXEC)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, input[0], 0)
        let argument = strdup(path)
        defer { free(argument) }
        var arguments = [argument, nil]
        try #require(posix_spawn(&child, path, &actions, nil, &arguments, nil) == 0)
        posix_spawn_file_actions_destroy(&actions)
        close(input[0])

        let running = try #require(ProcessIdentity(running: child))
        #expect(running.isRunning)
        close(input[1])
        var information = siginfo_t()
        #expect(waitid(P_PID, id_t(child), &information, WEXITED | WNOWAIT) == 0)
        #expect(!running.isRunning)
        #expect(waitpid(child, nil, 0) == child)
        #expect(!running.isRunning)
    }

    private static func line(name: String, state: String = "S", ticks: String = "98765") -> [UInt8] {
        let before = (4...21).map(String.init).joined(separator: " ")
        return Array("123 (\(name)) \(state) \(before) \(ticks) 0 0\n".utf8)
    }

    @Test(arguments: ["qed-ublk", "a b", ") S 1 2 3", "((", "", "x) Z (y"])
    func nameMayHoldAnything(name: String) throws {
        let stat = try #require(ProcessStat(Self.line(name: name)))
        #expect(stat.startTicks == 98765)
        #expect(stat.isAlive)
    }

    @Test func deadStatesAreNotAlive() throws {
        for state in ["Z", "X", "x"] {
            #expect(try #require(ProcessStat(Self.line(name: "n", state: state))).isAlive == false)
        }
    }

    @Test func otherTextIsNoStat() {
        let whole = Self.line(name: "n")
        #expect(ProcessStat([]) == nil)
        #expect(ProcessStat(Array("no parenthesis".utf8)) == nil)
        #expect(ProcessStat(Array("1 (n)".utf8)) == nil)
        #expect(ProcessStat(Array("1 (n) S 4 5 6".utf8)) == nil)
        #expect(ProcessStat(Self.line(name: "n", ticks: "-1")) == nil)
        #expect(ProcessStat(Self.line(name: "n", ticks: "99999999999999999999")) == nil)
        #expect(ProcessStat(whole) != nil)
    }
}
