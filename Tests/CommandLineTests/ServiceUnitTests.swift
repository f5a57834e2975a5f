import Foundation
import TestSupport
import Testing

/// The unit of packaging/ and the line of fstab in docs/boot.md, as systemd reads them on a machine that boots.
@Suite struct ServiceUnitTests {
    private static let unitName = "qed-ublk@files.service"
    private static let repository = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")

    let directory: TemporaryDirectory
    /// The documented line of fstab.
    let line: String
    let unit: String

    init() throws {
        directory = try TemporaryDirectory()
        let page = String(decoding: try readFile("\(Self.repository)/docs/boot.md"), as: UTF8.self)
        let lines = page.split(separator: "\n").filter { $0.contains("x-systemd.after=\(Self.unitName)") }
        try #require(lines.count == 1, "docs/boot.md has no line for fstab, or several")
        line = String(lines[0])
        unit = String(decoding: try readFile("\(Self.repository)/packaging/qed-ublk@.service"), as: UTF8.self)
    }

    /// What systemd says of a start of everything, with this unit enabled and this line in fstab.
    private func complaints(unit: String, line: String) throws -> [Substring] {
        let (units, generated, fstab) = (directory.path("units"), directory.path("generated"), directory.path("fstab"))
        try require(["rm", "-rf", units, generated])
        try require(["mkdir", "-p", "\(units)/multi-user.target.wants", generated])
        // The program is not installed here.
        let installed = unit.replacing("/usr/bin/qed-ublk", with: try QedUblkProgram.path())
        try #require(installed != unit)
        try writeFile("\(units)/qed-ublk@.service", Array(installed.utf8))
        for name in ["qed-ublk-users.socket", "qed-ublk-users@.service"] {
            try require(["cp", "\(Self.repository)/packaging/\(name)", units])
        }
        try require(["ln", "-s", "../qed-ublk@.service", "\(units)/multi-user.target.wants/\(Self.unitName)"])
        try writeFile(fstab, Array("\(line)\n".utf8))
        let system = "/usr/lib/systemd/system"
        try require(
            ["SYSTEMD_FSTAB=\(fstab)", "\(system)-generators/systemd-fstab-generator", generated, generated, generated])
        let mount = String(decoding: try readFile("\(generated)/mnt-files.mount"), as: UTF8.self)
        try #require(mount.contains("After=\(Self.unitName)"), "\(mount)")
        let result = try run(
            [
                "SYSTEMD_UNIT_PATH=\(units):\(generated):\(system)", "systemd-analyze", "verify", "--man=no", "default.target",
                "\(generated)/mnt-files.mount", "\(units)/\(Self.unitName)",
            ])
        // Other units of this machine may have their own defects.
        return result.errors.split(separator: "\n").filter { line in
            ["cycle", "qed", "mnt-files.mount"].contains { line.contains($0) }
        }
    }

    @Test(
        "as documented, and with other options that are used",
        arguments: ["nofail,", "", "_netdev,nofail,", "_netdev,", "noauto,"])
    func ordered(options: String) throws {
        try #require(line.contains(" x-systemd.after="))
        let changed = line.replacing(" x-systemd.after=", with: " \(options)x-systemd.after=")
        #expect(try complaints(unit: unit, line: changed) == [])
    }

    /// With systemd's default dependencies the unit starts after what is mounted at boot, and cannot be before one of them.
    @Test func cyclesAreFound() throws {
        let late = unit.replacing("\nDefaultDependencies=no\n", with: "\n")
        try #require(late != unit)
        let found = try complaints(unit: late, line: line)
        #expect(found.contains { $0.contains("Found ordering cycle") }, "\(found)")
        #expect(found.contains { $0.contains("Found dependency on \(Self.unitName)/start") }, "\(found)")
    }

    @Test func mistakesInTheUnitAreFound() throws {
        let found = try complaints(unit: unit.replacing("Restart=", with: "Restrat="), line: line)
        #expect(found.contains { $0.contains("Restrat") }, "\(found)")
    }
}
