import Glibc

/// Ends the process as a finding: a promise was broken. libFuzzer keeps the input.
func fail(_ what: String) -> Never {
    complain("BROKEN PROMISE: \(what)")
    abort()
}

/// Writes a line to standard error.
func complain(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = bytes.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
}

func require(_ condition: Bool, _ what: @autoclosure () -> String) {
    if !condition { fail(what()) }
}
