import Platform
import Testing

@testable import DeviceServer

struct ControlSocketMessagesTests {
    private static let requests: [(String, ControlRequest)] = [
        ("status", .status), ("stats", .stats), ("flush", .flush), ("quiesce", .quiesce), ("  status\t\r\n", .status),
        ("stop", .stop(force: false, timeoutSeconds: 30)), ("stop force", .stop(force: true, timeoutSeconds: 30)),
        ("stop lazy", .stopWhenUnused), ("stop timeout=0", .stop(force: false, timeoutSeconds: 0)),
        ("stop timeout=86400 force", .stop(force: true, timeoutSeconds: 86400)),
        ("snapshot /a/b.qed", .snapshot(path: "/a/b.qed", isOverlay: false)),
        ("snapshot overlay /a/b.qed", .snapshot(path: "/a/b.qed", isOverlay: true)),
        ("rollback /a%20b.qed", .rollback(path: "/a b.qed", force: false)),
        ("rollback force /a.qed", .rollback(path: "/a.qed", force: true)),
        ("commit keep=0", .commit(keep: 0, into: nil)), ("commit keep=3", .commit(keep: 3, into: nil)),
        ("commit keep=1 into=/a%20b.qed", .commit(keep: 1, into: "/a b.qed")), ("commit-pause", .commitChange(.pause)),
        ("commit-resume", .commitChange(.resume)), ("commit-cancel", .commitChange(.cancel)),
        ("flatten", .flatten), ("leave", .leave), ("verify", .verify),
        ("resize 1048576", .resize(sizeBytes: 1 << 20, isDifference: false)),
        ("warm", .warm(.range(deviceOffset: 0, lengthBytes: nil))),
        ("warm length=512 offset=1024", .warm(.range(deviceOffset: 1024, lengthBytes: 512))),
        ("warm ranges=/a%20b", .warm(.recorded(path: "/a b"))),
        ("resize +512", .resize(sizeBytes: 512, isDifference: true)),
        ("snapshot /a%20b/%C3%a4%25%0A.qed", .snapshot(path: "/a b/\u{e4}%\n.qed", isOverlay: false)),
    ]

    @Test(arguments: requests)
    func requestsAreLinesOfWords(line: String, request: ControlRequest) throws {
        #expect(try ControlRequest(line: line.utf8) == request)
        #expect(try ControlRequest(line: request.line.utf8) == request)
        #expect(!request.line.contains("\n"))
    }

    @Test(arguments: [
        "", "   ", "Status", "status now", "flush force", "quiesce now", "stop now", "stop lazy force", "stop force lazy",
        "stop timeout", "stop timeout=",
        "stop timeout=x", "stop timeout=-1", "stop timeout=86401", "stop timeout=99999999999999999999", "stop timeout=1.5", "{}",
        "\u{0}", "commit keep=-1", "commit keep=1001", "commit into=a.qed", "commit 1", "commit-pause now", "flatten now",
        "resize", "resize -1", "resize 1 2", "resize 18446744073709551616", "snapshot", "snapshot a.qed", "snapshot overlay",
        "snapshot overlay a.qed", "snapshot /a overlay", "snapshot /a /b", "snapshot /a%",
        "snapshot /a%2", "snapshot /a%zz",
        "snapshot /%ff", "rollback", "rollback force", "rollback a.qed", "rollback /a force", "rollback force force /a",
        "snapshot /a%00b", "verify now", "warm now", "warm offset=-1", "warm offset=1 offset=2", "warm length=", "warm ranges=a",
        "warm ranges=/a offset=0", "warm offset=18446744073709551616",
    ])
    func otherLinesAreNone(line: String) {
        let error = #expect(throws: ControlRequestError.self) { try ControlRequest(line: line.utf8) }
        #expect(error?.description.isEmpty == false)
    }

    @Test func linesThatAreNoTextAreNone() {
        #expect(throws: ControlRequestError.self) { try ControlRequest(line: [0x73, 0xff]) }
    }

    @Test func longWordsAreNotRepeatedInFull() {
        let line = String(repeating: "x", count: 4000)
        let error = #expect(throws: ControlRequestError.self) { try ControlRequest(line: line.utf8) }
        #expect((error?.description.utf8.count ?? 0) < 200)
    }

    @Test func repliesAreOneLineOfJSON() throws {
        let success = ControlReply.success(["state": "live", "text": "two\nlines"])
        #expect(
            String(decoding: success.line, as: UTF8.self)
                == #"{"ok":true,"result":{"state":"live","text":"two\nlines"}}"# + "\n")
        #expect(ControlReply(line: success.line) == success)
        for code in ControlReply.FailureCode.allCases {
            let failure = ControlReply.failure(code, "the reason")
            #expect(ControlReply(line: failure.line) == failure)
        }
        #expect(
            String(decoding: ControlReply.failure(.badRequest, "why").line, as: UTF8.self)
                == #"{"ok":false,"code":"bad-request","error":"why"}"# + "\n")
    }

    @Test func repliesOfOtherVersionsAreUnderstoodAsFarAsPossible() {
        #expect(ControlReply(line: #"{"ok":true,"more":1}"#.utf8) == .success(.null))
        #expect(ControlReply(line: #"{"ok":false,"code":"new","error":"why"}"#.utf8) == .failure(.failed, "why"))
        #expect(ControlReply(line: #"{"ok":false,"error":"why"}"#.utf8) == .failure(.failed, "why"))
        for line in ["", "ok", "{}", #"{"ok":1}"#, #"{"ok":false}"#, "[]"] {
            #expect(ControlReply(line: line.utf8) == nil)
        }
    }

    @Test func replyThatIsTooLongIsReplacedByAnError() {
        let longest = ControlReply.success(.string(String(repeating: "x", count: 65_536 - 24)))
        #expect(longest.line.count == ControlReply.limitBytes)
        #expect(ControlReply(line: longest.line) == longest)
        let tooLong = ControlReply.success(.string(String(repeating: "x", count: 65_536 - 23)))
        guard case .failure(.failed, let sentence) = ControlReply(line: tooLong.line) else {
            Issue.record("sent")
            return
        }
        #expect(sentence.contains("65537"))
    }
}
