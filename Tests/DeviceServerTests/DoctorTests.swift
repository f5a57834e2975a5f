import Glibc
import IOURing
import ImageTools
import Platform
import SystemPackage
import TestSupport
import Testing
import Ublk

@testable import DeviceServer

/// What `doctor` makes of what it finds.
@Suite struct DoctorTests {
    @Test(arguments: [
        ("6.18.4", [Finding.Verdict.warning, .note]), ("6.18.6", [.note]), ("6.18.40", [.warning]),
        ("7.0.0-28-generic", [.warning]),
        ("6.12.48+deb13-amd64", [.note]), ("7.3.4", [.good]), ("6.16.0", [.good]), ("6.15.9", [.note]), ("7.1.0", [.good]),
    ])
    func kernels(_ release: String, _ verdicts: [Finding.Verdict]) {
        let findings = Doctor.kernel(KernelRelease(release))
        #expect(findings.map(\.verdict) == verdicts)
        for finding in findings {
            #expect(finding.subject == "kernel" && (finding.remedy == nil) == (finding.verdict == .good))
            #expect(finding.sentence.contains("Linux \(release)"))
        }
    }

    @Test func aKernelWithoutAFeatureIsSaidToLackWhatNeedsIt() {
        let all: UblkFeatures = [
            .ioctlEncoding, .userRecovery, .autoBufferRegistration, .userCopy, .updateSize, .quiesce, .safeStop,
        ]
        #expect(Doctor.abilities(all).map(\.verdict) == [.good])
        for (feature, word) in [
            (UblkFeatures.userCopy, "zero copy"), (.autoBufferRegistration, "zero copy"), (.updateSize, "resize"),
            (.userRecovery, "recovery"), (.quiesce, "leaves"), (.safeStop, "del"),
        ] {
            let findings = Doctor.abilities(all.subtracting(feature))
            #expect(findings.map(\.verdict) == [.good, .note])
            #expect(findings.last?.sentence.contains(word) == true && findings.last?.remedy != nil, "\(word)")
        }
        #expect(Doctor.abilities(all.subtracting(.ioctlEncoding)).map(\.verdict) == [.trouble])
    }

    @Test func ringsThatNobodyMayHave() {
        #expect(Doctor.rings(refusal: RingRefusal.diagnosis(.notPermitted, policy: "2"), policy: "2").verdict == .trouble)
        for allowed in ["0", "1", nil] { #expect(Doctor.rings(refusal: nil, policy: allowed).verdict == .good) }
    }

    /// Whatever fails for it says what `doctor` does.
    @Test func theSameSentences() throws {
        func isSaid(_ finding: Finding, by error: String) -> Bool {
            error.contains(finding.sentence) && finding.remedy.map(error.contains) == true
        }
        let rings = Doctor.rings(refusal: RingRefusal.diagnosis(.notPermitted), policy: RingRefusal.policy)
        #expect(isSaid(rings, by: "\(UblkControlError.ringUnavailable(.notPermitted))"))
        #expect(isSaid(rings, by: "\(ServerError.ring(.notPermitted))"))
        #expect(isSaid(rings, by: "\(ImageToolError.noRing(.notPermitted))"))

        let group = ControlGroupMemory(limitBytes: 24 << 20, killCount: 0)
        let death = try #require(group.cause(ofDeath: ControlGroupMemory(limitBytes: 24 << 20, killCount: 1)))
        #expect(isSaid(Doctor.memory(group), by: "\(ServerStartError.killed(death))"))

        let lacking = try #require(Doctor.abilities([.ioctlEncoding]).first { $0.sentence.contains("zero copy") })
        #expect(lacking.sentence.hasPrefix(DriverAbility.zeroCopy.lack))
        #expect("\(ServerError.noZeroCopy)".hasPrefix(DriverAbility.zeroCopy.lack))

        let directory = try TemporaryDirectory()
        guard getuid() == 0, chown(directory.path, 65534, 65534) == 0 else { return }
        let registry = DeviceRegistry(directory: directory.path)
        let finding = Doctor.directory(registry)
        #expect(finding.verdict == .trouble)
        do { try registry.checkOwner() } catch { #expect(isSaid(finding, by: "\(error)")) }
    }

    @Test func aControlGroupThatIsTooSmall() {
        func verdict(_ limitBytes: UInt64?) -> Finding.Verdict {
            Doctor.memory(ControlGroupMemory(limitBytes: limitBytes, killCount: 0)).verdict
        }
        #expect(verdict(nil) == .good && verdict(1 << 30) == .good && verdict(64 << 20) == .warning)
    }

    @Test func memoryThatCannotBeLocked() {
        #expect(Doctor.lockedMemory(limitBytes: nil).verdict == .good)
        let finding = Doctor.lockedMemory(limitBytes: 8 << 20)
        #expect(finding.verdict == .warning && finding.sentence.contains("8192 KiB") && finding.remedy != nil)
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

    @Test func aDeviceThatIsBeingMadeHasLostNothing() {
        #expect(Doctor.device("/dev/ublkb3", id: 3, state: "dead", isServed: true, use: nil) == nil)
    }

    @Test("a device that cannot be recovered is not to be recovered")
    func takeoverThatWasCutShort() throws {
        let finding = try #require(Doctor.device("/dev/ublkb3", id: 3, state: "waiting", cutShort: true, use: nil))
        #expect(finding.remedy?.contains("qed-ublk del --force 3") == true)
        #expect("\(ServerError.cutShort(id: 3))" == "\(finding.sentence); \(finding.remedy ?? "")")
    }
}

@Suite struct ControlGroupMemoryTests {
    @Test("the least limit counts, and what the group itself has lost")
    func limits() throws {
        let kernel = try FakeKernel()
        #expect(ControlGroupMemory(kernel.tree) == ControlGroupMemory(limitBytes: nil, killCount: 0))
        try kernel.write("4:memory:/old\n0::/a/b\n", "/proc/self/cgroup")
        try kernel.write("max\n", "/sys/fs/cgroup/a/b/memory.max")
        try kernel.write("low 0\noom 4\noom_kill 3\noom_group_kill 0\n", "/sys/fs/cgroup/a/b/memory.events")
        try kernel.write("oom_kill 7\n", "/sys/fs/cgroup/a/memory.events")
        #expect(ControlGroupMemory(kernel.tree) == ControlGroupMemory(limitBytes: nil, killCount: 3))
        try kernel.write("67108864\n", "/sys/fs/cgroup/a/memory.max")
        #expect(ControlGroupMemory(kernel.tree) == ControlGroupMemory(limitBytes: 64 << 20, killCount: 3))
    }

    @Test("a death is the group's doing where the kernel has counted it")
    func deaths() throws {
        let before = ControlGroupMemory(limitBytes: 64 << 20, killCount: 3)
        #expect(before.cause(ofDeath: before) == nil)
        #expect(before.cause(ofDeath: ControlGroupMemory(limitBytes: 64 << 20, killCount: 4)) == before.shortage)
        let large = ControlGroupMemory(limitBytes: nil, killCount: 4)
        #expect(large.shortage == nil && before.cause(ofDeath: large)?.sentence.contains("want of memory") == true)
    }
}
