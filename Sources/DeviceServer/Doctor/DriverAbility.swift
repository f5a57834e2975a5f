import Platform
import Ublk

/// What newer drivers can do, and what is missing where one cannot.
struct DriverAbility {
    let features: UblkFeatures
    private let name: String
    /// The first of kernel.org's that can.
    private let kernel: String
    private let consequence: String

    /// The beginning of a sentence.
    var lack: String { "this kernel's ublk driver has no \(name), which needs Linux \(kernel) or later" }

    var diagnosis: Diagnosis { Diagnosis("\(lack): \(consequence)", remedy: "use such a kernel where that matters") }

    static let recovery = DriverAbility(
        features: .userRecovery, name: "recovery", kernel: "6.1", consequence: "a device goes with its server")
    static let zeroCopy = DriverAbility(
        features: .servesPages, name: "zero copy", kernel: "6.16", consequence: "data is copied once more for each request")
    static let newSize = DriverAbility(
        features: .updateSize, name: "change of a disk's size", kernel: "6.16",
        consequence: "a disk cannot grow while it is used ('resize')")
    static let quiesce = DriverAbility(
        features: .quiesce, name: "quiesce", kernel: "6.16",
        consequence: "a server that leaves its device is noticed a moment later")
    static let safeStop = DriverAbility(
        features: .safeStop, name: "count of a disk's users", kernel: "7.0",
        consequence: "'del' has the disk exclusively for a moment, instead of asking the kernel who uses it")

    static let all = [recovery, zeroCopy, newSize, quiesce, safeStop]
}
