import Glibc

/// Times for people and programs. The argument is in seconds since 1970; nil for a time that no calendar has.
enum TimeText {
    /// As ISO 8601 has it: 2026-11-29T08:05:00Z.
    static func utc(_ seconds: Int) -> String? { text(seconds, "%Y-%m-%dT%H:%M:%SZ", gmtime_r) }

    /// Of the day, where the machine is: 08:05:00.
    static func ofDay(_ seconds: Int) -> String? { text(seconds, "%H:%M:%S", localtime_r) }

    private static func text(
        _ seconds: Int, _ format: String,
        _ parts: (UnsafePointer<time_t>?, UnsafeMutablePointer<tm>?) -> UnsafeMutablePointer<tm>?
    ) -> String? {
        var seconds = seconds
        var fields = tm()
        guard parts(&seconds, &fields) != nil else { return nil }
        var bytes = [CChar](repeating: 0, count: 64)
        let count = strftime(&bytes, bytes.count, format, &fields)
        return String(decoding: bytes.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
