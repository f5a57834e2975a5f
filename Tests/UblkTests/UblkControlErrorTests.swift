import IOURing
import Platform
import SystemPackage
import Testing

@testable import Ublk

struct UblkControlErrorTests {
    /// Every documented pair of command and errno, and the word without which its sentence would not help.
    private static let refusals: [(UblkCommand, Errno, String)] = [
        (.addDevice, .fileExists, "in use"), (.addDevice, .permissionDenied, "ublks_max"),
        (.addDevice, .invalidArgument, "combination"), (.addDevice, .notPermitted, "root"),
        (.addDevice, .noMemory, "memory"), (.addDevice, .noSpace, "every device id"),
        (.addDevice, .unknownCommand, "6.4"), (.addDevice, .noSuchDevice, "6.4"),
        (.setParameters, .permissionDenied, "started already"), (.setParameters, .invalidArgument, "block sizes"),
        (.setParameters, .noSuchDevice, "no such device"), (.getParameters, .invalidArgument, "layout"),
        (.getQueueAffinity, .invalidArgument, "no such queue"), (.getDeviceInfo, .noSuchDevice, "no such device"),
        (.getDeviceInfo, .notPermitted, "root"), (.startDevice, .invalidArgument, "/dev/ublkc7"),
        (.startDevice, .fileExists, "live already"), (.startDevice, .resourceBusy, "stopped"),
        (.startDevice, .noSuchDevice, "no such device"), (.startDevice, .interrupted, "signal"),
        (.stopDevice, .noSuchDevice, "no such device"), (.stopDevice, .interrupted, "interrupted"),
        (.tryStopDevice, .resourceBusy, "/dev/ublkb7 is in use"), (.tryStopDevice, .noSuchDevice, "not started"),
        (.tryStopDevice, .unknownCommand, "7.0"), (.deleteDevice, .noSuchDevice, "no such device"),
        (.deleteDeviceAsync, .unknownCommand, "6.9"), (.deleteDeviceAsync, .invalidArgument, "unprivileged"),
        (.startRecovery, .resourceBusy, "old server"), (.startRecovery, .invalidArgument, "without recovery"),
        (.endRecovery, .invalidArgument, "/dev/ublkc7"), (.endRecovery, .resourceBusy, "not waiting for a server"),
        (.quiesce, .resourceBusy, "held back"), (.quiesce, .unknownCommand, "6.16"),
        (.quiesce, .noSuchDevice, "not started"), (.updateSize, .noSuchDevice, "not started"),
        (.updateSize, .unknownCommand, "6.16"), (.getFeatures, .unknownCommand, "6.5"),
    ]

    @Test(arguments: refusals)
    func refusalSaysWhatToDo(command: UblkCommand, errno: Errno, word: String) {
        let sentence = UblkControlError.refused(command, deviceID: 7, errno).description
        #expect(sentence.contains(word), "\(sentence)")
        #expect(sentence.hasPrefix("cannot "), "\(sentence)")
    }

    @Test func everyErrorIsOneSentence() {
        let someErrnos = (1...133).map { Errno(rawValue: $0) }
        for command in UblkCommand.allCases {
            for id in [nil, UInt32(3)] {
                for errno in someErrnos {
                    let sentence = UblkControlError.refused(command, deviceID: id, errno).description
                    #expect(!sentence.contains("\n") && !sentence.hasSuffix("."), "\(sentence)")
                }
                let hint = timeoutHint(for: command, deviceID: id, kernel: nil)
                let late = UblkControlError.timedOut(command, deviceID: id, after: .seconds(30), hint: hint).description
                #expect(late.contains("did not answer within 30 s; \(hint)"), "\(late)")
            }
        }
    }

    @Test func undocumentedErrnoIsNamed() {
        let sentence = UblkControlError.refused(.stopDevice, deviceID: 1, .ioError).description
        #expect(sentence.contains("errno 5 of STOP_DEV"))
    }

    @Test func missingDriverIsExplained() {
        #expect(
            UblkControlError.noDriver.description
                == "this kernel has no ublk; run 'modprobe ublk_drv'; it needs CONFIG_BLK_DEV_UBLK and Linux 6.4 or later")
        #expect(UblkControlError.notPermitted(path: "/dev/ublk-control").description.contains("root"))
        #expect(UblkControlError.ringUnavailable(.invalidArgument).description.contains("128-byte"))
        #expect(UblkControlError.ringUnavailable(.noFunction).description.contains("CONFIG_IO_URING"))
    }

    @Test(
        "who forbids an io_uring is told by the machine's policy",
        arguments: [
            ("2", "io_uring_disabled=1"), ("1", "io_uring_group"), ("0", "filter"), (nil, "filter"),
        ])
    func forbiddenRings(policy: String?, word: String) {
        #expect("\(RingRefusal.diagnosis(.notPermitted, policy: policy))".contains(word))
    }

    @Test func shortTimeoutsAreNotRoundedAway() {
        let error = UblkControlError.timedOut(.stopDevice, deviceID: 1, after: .milliseconds(1500), hint: "why")
        #expect(error.description.contains("within 1500 ms; why"))
    }

    @Test func errnoIsOfferedToCallers() {
        #expect(UblkControlError.refused(.tryStopDevice, deviceID: 1, .resourceBusy).errno == .resourceBusy)
        #expect(UblkControlError.noDriver.errno == nil)
    }

    @Test func brokenKernelsAreNamedWhenAddingTimesOut() {
        let hint = timeoutHint(for: .addDevice, deviceID: nil, kernel: KernelRelease("6.18.5-arch1-1"))
        #expect(hint.contains("Linux 6.18.5-arch1-1 is known"))
        #expect(timeoutHint(for: .addDevice, deviceID: nil, kernel: KernelRelease("6.18.6")).contains("dmesg"))
        #expect(!timeoutHint(for: .stopDevice, deviceID: 1, kernel: KernelRelease("6.18.5")).contains("6.18.5"))
        #expect(timeoutHint(for: .startDevice, deviceID: 1, kernel: KernelRelease("6.18.40")).contains("only a reboot helps"))
        #expect(!timeoutHint(for: .startDevice, deviceID: 1, kernel: KernelRelease("7.0.1")).contains("reboot"))
    }

    @Test func openErrorsSayWhatToDo() {
        #expect(UblkOpenError(path: "/dev/ublkc1", errno: .resourceBusy).description.contains("another process"))
        #expect(UblkOpenError(path: "/dev/ublkc1", errno: .noSuchFileOrDirectory).description.contains("udev"))
        #expect(UblkOpenError(path: "/dev/ublkc1", errno: .permissionDenied).description.contains("root"))
    }
}

struct KernelReleaseTests {
    private static let releases: [(String, Int, Int, Int, String)] = [
        ("6.12.95", 6, 12, 95, ""), ("6.1.0-37-amd64", 6, 1, 0, "-37-amd64"), ("7.0-rc4", 7, 0, 0, "-rc4"),
        ("6.18.4+deb", 6, 18, 4, "+deb"), ("6.18.", 6, 18, 0, ""),
    ]

    @Test(arguments: releases)
    func releasesAreParsed(text: String, major: Int, minor: Int, patch: Int, suffix: String) throws {
        let release = try #require(KernelRelease(text))
        #expect(release.major == major && release.minor == minor && release.patch == patch)
        #expect(release.suffix == suffix)
    }

    @Test(arguments: ["", "6", "6.", "six.one", "-1.2", "99999999999999999999.1", ".6.1", "6..1"])
    func otherTextIsNot(text: String) { #expect(KernelRelease(text) == nil) }

    private static let defects: [(String, [KernelDefect])] = [
        ("6.18.4", [.addHangs, .startMayHang]), ("6.18.5-200.fc43.x86_64", [.addHangs, .startMayHang]),
        ("6.18.3", [.startMayHang]), ("6.18.6", [.startMayHang]), ("6.18.40-061840-generic", [.startHangs]),
        ("6.12.95", [.takeoverIsCutShort]), ("6.15.0", [.takeoverIsCutShort]), ("6.16.0", []),
        ("6.17.0-1015-azure", [.addHangs]), ("6.17.0-1018-azure", [.addHangs]), ("6.17.0-1014-azure", []),
        ("6.17.0-1007-aws", [.addHangs]), ("6.17.0-14-generic", []), ("6.19.0", []),
        ("7.0.0-28-generic", [.startHangs]), ("7.0.0-1011-azure", [.startMayHang]), ("7.0.12", [.startMayHang]), ("7.1.0", []),
    ]

    @Test(arguments: defects)
    func knownDefectsAreOfTheirKernelsOnly(text: String, defects: [KernelDefect]) throws {
        let release = try #require(KernelRelease(text))
        #expect(release.defects == defects)
        for defect in KernelDefect.allCases { #expect((release.diagnosis(of: defect) != nil) == defects.contains(defect)) }
    }

    @Test func defectsAreSaidInASentence() throws {
        let diagnosis = try #require(KernelRelease("6.18.4-generic")?.diagnosis(of: .addHangs))
        #expect(
            "\(diagnosis)" == "Linux 6.18.4-generic is known to hang or crash when a ublk device is added; "
                + "use another kernel (6.18.6 or later of its series) and reboot")
    }

    @Test func thisKernelHasARelease() { #expect(KernelRelease.running != nil) }
}
