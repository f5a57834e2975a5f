import Foundation

/// A block device of this machine, if it has one whose node can be opened for reading. Nothing is ever written to it.
enum BlockDevice {
    static let any: String? = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/sys/class/block")) ?? []
        return names.sorted().map { "/dev/\($0)" }.first { path in
            let descriptor = open(path, O_RDONLY | O_NONBLOCK)
            guard descriptor >= 0 else { return false }
            close(descriptor)
            return true
        }
    }()
}
