import Glibc
import Platform
import Ublk

/// A process of `qed-ublk-users@.service`, one for each question. Not for users: its standard input is the connection of a server
/// whose unit keeps it from seeing others' open files.
///
/// It looks, and has written what has to be: it opens no device, changes nothing, and takes nothing but the device's number from
/// whoever asks.
public enum UsersProcess {
    /// Nobody asks more slowly.
    private static let questionSeconds: UInt32 = 10

    public static func main() {
        // It ends by that signal.
        alarm(questionSeconds)
        let line = readLine(from: STDIN_FILENO, limitBytes: UsersQuestion.limitBytes)
        alarm(0)
        // One that cannot see who uses a disk says nothing, which means that somebody may.
        guard ThreadCapabilities.maySeeAll, let question = line.flatMap({ UsersQuestion(line: $0) }) else { return }
        _ = Broker.send(answer(to: question).json, to: STDIN_FILENO)
    }

    private static func answer(to question: UsersQuestion) -> UsersAnswer {
        switch question {
        case .users(let id):
            let disk = DiskDevices(ofDiskAt: UblkPaths.blockDevice(id))
            return UsersAnswer(usedBy: DiskUse.processes(using: disk.numbers, among: ProcessFiles.otherProcesses()))
        case .writeBack(let id):
            var sentences: [String] = []
            WriteBack.syncFileSystems(of: DiskStack(ofDiskAt: UblkPaths.blockDevice(id), .unopened)) { sentences.append($0) }
            return UsersAnswer(notWritten: sentences)
        }
    }
}
