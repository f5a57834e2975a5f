import CSupport
import Glibc

/// A terminal that a program draws its screen on and reads keys from, and that is as it was before when this goes.
final class Terminal {
    private var before = termios()
    /// Readable when the program is to end.
    private let signals: Int32

    /// nil where standard input or output is no terminal.
    init?() {
        guard isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1, tcgetattr(STDIN_FILENO, &before) == 0 else { return nil }
        signals = cs_open_signals()
        guard signals >= 0, cs_block_signals() == 0 else { return nil }
        var raw = before
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
        tcsetattr(STDIN_FILENO, TCSANOW, &raw)
    }

    deinit {
        tcsetattr(STDIN_FILENO, TCSANOW, &before)
        close(signals)
    }

    /// Columns and lines; 80 and 24 where it does not say.
    var size: (columns: Int, lines: Int) {
        var columns: UInt16 = 0
        var lines: UInt16 = 0
        guard cs_terminal_size(STDOUT_FILENO, &columns, &lines) == 0, columns > 0, lines > 0 else { return (80, 24) }
        return (Int(columns), Int(lines))
    }

    /// What moves the cursor to the top and clears the rest.
    static let home = "\u{1b}[H\u{1b}[J"

    enum Event {
        case key(UInt8)
        case timeout
        /// A signal asks to end, or the terminal is gone.
        case end
    }

    func wait(milliseconds: Int32) -> Event {
        var descriptors = [
            pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0), pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
        ]
        let count = poll(&descriptors, 2, milliseconds)
        if count == 0 { return .timeout }
        if count < 0 { return errno == EINTR ? .timeout : .end }
        if descriptors[1].revents != 0 { return .end }
        var key: UInt8 = 0
        return read(STDIN_FILENO, &key, 1) == 1 ? .key(key) : .end
    }
}
