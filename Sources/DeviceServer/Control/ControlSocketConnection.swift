import SystemPackage

/// One client of a control socket, from its first byte to the last of its reply.
///
/// A state machine that does the reading and writing that is possible and never waits.
struct ControlConnection {
    enum State: Equatable {
        case receiving([UInt8])
        /// The request is handed on; the reply may take as long as it takes.
        case awaitingReply
        case sending(ArraySlice<UInt8>)
        /// Done, or the client has gone: close it.
        case finished
    }

    /// What a client's bytes amount to.
    enum Input: Equatable {
        case incomplete
        case request(ControlRequest)
        case malformed(String)
        /// Ended without a word.
        case abandoned
    }

    let descriptor: Int32
    private(set) var state: State = .receiving([])

    init(descriptor: Int32) { self.descriptor = descriptor }

    /// Whether a client that needs the place may have it: nobody works for this one.
    var canBeEvicted: Bool { state != .awaitingReply }

    /// Reads on.
    /// - Returns: the request, once it is complete. A malformed one is answered here.
    mutating func receive() -> ControlRequest? {
        guard case .receiving(var content) = state else { return nil }
        var input = Input.incomplete
        do throws(Errno) {
            while input == .incomplete {
                guard
                    let count = try receiveAvailable(
                        descriptor, into: &content, limitBytes: ControlRequest.limitBytes)
                else { break }
                input = Self.input(content, isEnd: count == 0)
            }
        } catch {
            input = .abandoned
        }
        switch input {
        case .incomplete:
            state = .receiving(content)
        case .request(let request):
            state = .awaitingReply
            return request
        case .malformed(let sentence):
            reply(.failure(.badRequest, sentence))
        case .abandoned:
            state = .finished
        }
        return nil
    }

    /// What has come so far. The end of the stream ends a line too.
    static func input(_ content: [UInt8], isEnd: Bool) -> Input {
        let lineEnd = content.firstIndex(of: UInt8(ascii: "\n"))
        if lineEnd == nil && !isEnd {
            guard content.count >= ControlRequest.limitBytes else { return .incomplete }
            return .malformed("the request is longer than \(ControlRequest.limitBytes) bytes")
        }
        if content.isEmpty { return .abandoned }
        do throws(ControlRequestError) {
            return .request(try ControlRequest(line: content[..<(lineEnd ?? content.endIndex)]))
        } catch {
            return .malformed(error.description)
        }
    }

    /// Begins to send the reply.
    mutating func reply(_ reply: ControlReply) {
        state = .sending(reply.line[...])
        send()
    }

    /// Sends on.
    mutating func send() {
        guard case .sending(var rest) = state else { return }
        do throws(Errno) {
            while !rest.isEmpty {
                let count = try sendAvailable(descriptor, rest)
                if count == 0 {
                    state = .sending(rest)
                    return
                }
                rest = rest.dropFirst(count)
            }
        } catch {
            // The client has gone.
        }
        state = .finished
    }

    /// The client has closed its side of a connection whose request is being worked on.
    mutating func hangUp() { state = .finished }
}
