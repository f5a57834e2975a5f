import TestSupport
import Testing
import Ublk

@testable import DeviceServer

/// What `doctor` makes of what it finds.
@Suite struct DoctorTests {
    @Test(arguments: [
        ("6.18.4", Finding.Verdict.warning), ("6.18.6", .good), ("6.12.48+deb13-amd64", .note), ("7.3.4", .good),
        ("6.16.0", .good),
        ("6.15.9", .note),
    ])
    func kernels(_ release: String, _ verdict: Finding.Verdict) {
        let finding = Doctor.kernel(KernelRelease(release))
        #expect(finding.verdict == verdict && finding.subject == "kernel")
        #expect((finding.remedy == nil) == (verdict == .good))
    }

    @Test func aKernelWithoutAFeatureIsSaidToLackWhatNeedsIt() {
        let all: UblkFeatures = [
            .ioctlEncoding, .userRecovery, .autoBufferRegistration, .userCopy, .updateSize, .quiesce, .safeStop,
        ]
        #expect(Doctor.features(all).isEmpty)
        for (feature, word) in [
            (UblkFeatures.userCopy, "zero copy"), (.autoBufferRegistration, "zero copy"), (.updateSize, "resize"),
            (.userRecovery, "recovery"), (.quiesce, "leaves"), (.safeStop, "del"),
        ] {
            let findings = Doctor.features(all.subtracting(feature))
            #expect(findings.map(\.verdict) == [.note])
            #expect(findings.first?.sentence.contains(word) == true && findings.first?.remedy != nil, "\(word)")
        }
        #expect(Doctor.features(all.subtracting(.ioctlEncoding)).map(\.verdict) == [.trouble])
    }

    @Test func ringsThatNobodyMayHave() {
        #expect(Doctor.rings(disabled: "2").verdict == .trouble)
        for allowed in ["0", "1", nil] { #expect(Doctor.rings(disabled: allowed).verdict == .good) }
    }

    @Test func aControlGroupThatIsTooSmall() {
        #expect(Doctor.memory(limitBytes: nil).map(\.verdict) == [.good])
        #expect(Doctor.memory(limitBytes: 1 << 30).map(\.verdict) == [.good])
        #expect(Doctor.memory(limitBytes: 64 << 20).map(\.verdict) == [.warning])
    }

    @Test func memoryThatCannotBeLocked() {
        #expect(Doctor.lockedMemory(limitBytes: nil).verdict == .good)
        #expect(Doctor.lockedMemory(limitBytes: 1 << 30).verdict == .good)
        let finding = Doctor.lockedMemory(limitBytes: 8 << 20)
        #expect(finding.verdict == .warning && finding.sentence.contains("8 MiB") && finding.remedy != nil)
    }

    @Test func aUdevWithoutTheRule() {
        #expect(Doctor.names(isUdevRunning: true, hasRule: true).verdict == .good)
        #expect(Doctor.names(isUdevRunning: false, hasRule: false).verdict == .good)
        let finding = Doctor.names(isUdevRunning: true, hasRule: false)
        #expect(finding.verdict == .note && finding.remedy?.contains("59-qed-ublk.rules") == true)
    }

    @Test func aDirectoryOnADisk() throws {
        let directory = try TemporaryDirectory()
        let finding = Doctor.directory(DeviceRegistry(directory: directory.path("none")))
        #expect(finding.verdict == .good && finding.sentence.contains("first device"))
        #expect(Doctor.directory(DeviceRegistry(directory: "/proc")).verdict == .warning)
        #expect(Doctor.directory(DeviceRegistry(directory: "/dev/shm")).verdict == .good)
    }

    @Test(arguments: [
        ("waiting", "qed-ublk recover 3"), ("dead", "qed-ublk del 3"), ("orphan", "qed-ublk del 3"),
        ("failed", "docs/recovery.md"),
    ])
    func devicesThatWantAttention(_ state: String, _ remedy: String) throws {
        let finding = try #require(Doctor.device("/dev/ublkb3", id: 3, state: state, use: "/dev/ublkb3 is in use by x"))
        #expect(finding.verdict == .warning && finding.remedy?.contains(remedy) == true)
        #expect(finding.sentence.hasSuffix("; /dev/ublkb3 is in use by x"))
        #expect(Doctor.device("/dev/ublkb3", id: 3, state: "live", use: nil) == nil)
    }
}
