import BlockStorage
import Glibc
import Platform
import Ublk

// The devices that there are, and who is stopped by those that have no server. Nothing of it opens, or looks for, a file that may
// lie on one of them: who does that waits as well.
extension Doctor {
    /// - Parameter driver: what it can do, where it says so.
    static func devices(_ registry: DeviceRegistry, driver: UblkFeatures?) -> [Finding] {
        let known: [KnownDevice]
        do { known = try KnownDevices.all(registry: registry) } catch let error as DeviceRequirements.ProcMissing {
            return [Finding("devices", .trouble, error.diagnosis)]
        } catch is RegistryError {
            // Which is a finding of its own: the directory's.
            return []
        } catch {
            return [Finding("devices", .warning, Diagnosis("\(error)"))]
        }
        var findings = known.compactMap { known in
            device(
                known.path, id: known.id, state: known.state, isServed: known.server != nil,
                cutShort: known.wasCutShort(driver), use: DiskUse.found(ofDiskAt: known.path, .unopened)?.subject)
        }
        findings += MountsThatHang(known, stops: known.compactMap(\.stop)).findings
        guard findings.isEmpty else { return findings }
        return [Finding("devices", .good, known.isEmpty ? "there is none" : "\(known.count), and none that needs anybody")]
    }

    /// - Parameters:
    ///   - isServed: the process that is its server runs.
    ///   - use: who uses it; nil: nobody, as far as can be seen. All processes are looked at for it, so it is asked only of a
    ///     device that wants attention.
    static func device(
        _ path: String, id: UInt32, state: String, isServed: Bool = false, cutShort: Bool = false, use: @autoclosure () -> String?
    ) -> Finding? {
        func finding(_ sentence: String, _ remedy: String) -> Finding {
            Finding("devices", .warning, Diagnosis(sentence + (use().map { "; \($0)" } ?? ""), remedy: remedy))
        }
        switch state {
        case "waiting" where cutShort: return Finding("devices", .warning, Takeover.cutShort(id))
        case "waiting": return finding("\(path) has lost its server, and whoever uses it waits", "qed-ublk recover \(id)")
        // It is being made, or removed.
        case "dead" where isServed: return nil
        case "dead": return finding("\(path) has lost its server, and cannot get another one", "qed-ublk del \(id)")
        case "failed":
            return finding(
                "\(path) only reads, since a sync of its image has failed",
                "see the server's log in the runtime directory, and docs/recovery.md")
        case "orphan":
            return finding(
                "\(path) has no server, and nobody knows its image", "if it is no other program's: qed-ublk del \(id)")
        default: return nil
        }
    }
}

extension KnownDevice {
    fileprivate func wasCutShort(_ driver: UblkFeatures?) -> Bool {
        guard let record, let info, server == nil else { return false }
        return Takeover.wasCutShort(record, driver: driver, serverProcess: info.serverProcess)
    }

    /// How it stops whoever uses it; nil where it does not.
    fileprivate var stop: MountsThatHang.Stop? {
        func stop(_ effect: MountsThatHang.Stop.Effect) -> MountsThatHang.Stop {
            MountsThatHang.Stop(id: id, effect: effect)
        }
        switch (state, info?.state) {
        case ("waiting", _): return stop(.waitsForServer)
        case ("dead", _): return server == nil ? stop(.fails) : nil
        case ("orphan", .quiesced?): return stop(.waitsForNobody)
        case ("orphan", .dead?), ("orphan", .failingIO?): return stop(.fails)
        default: return nil
        }
    }
}
