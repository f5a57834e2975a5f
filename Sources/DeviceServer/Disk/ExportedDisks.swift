/// The kernel's own servers of block devices: NVMe's target, and that of SCSI (iSCSI, Fibre Channel). They have a disk open
/// without being a process or a device of their own; configfs says which.
enum ExportedDisks {
    /// Who serves one of the devices, in words: "the NVMe target's subsystem NAME".
    /// - Parameter numbers: "major:minor" of each.
    static func exporters(of numbers: [String], _ tree: KernelTree = .machine) -> [String] {
        func isOneOfThem(_ node: String?) -> Bool {
            guard let node, node.hasPrefix("/dev/"), let number = tree.deviceNumber(node) else { return false }
            return numbers.contains(number)
        }
        let subsystems = "/sys/kernel/config/nvmet/subsystems"
        let nvme = tree.names(subsystems).filter { subsystem in
            tree.names("\(subsystems)/\(subsystem)/namespaces").contains { number in
                let namespace = "\(subsystems)/\(subsystem)/namespaces/\(number)"
                return tree.line("\(namespace)/enable") == "1" && isOneOfThem(tree.line("\(namespace)/device_path"))
            }
        }
        let cores = "/sys/kernel/config/target/core"
        let scsi = tree.names(cores).flatMap { core in
            tree.names("\(cores)/\(core)").filter { store in
                let directory = "\(cores)/\(core)/\(store)"
                return tree.line("\(directory)/enable") == "1" && isOneOfThem(tree.line("\(directory)/udev_path"))
            }
        }
        return nvme.map { "the NVMe target's subsystem \($0)" } + scsi.map { "the SCSI target's storage object \($0)" }
    }
}
