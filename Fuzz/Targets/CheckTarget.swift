import FuzzImages
import QEDEngine
import QEDFormat

@testable import ImageTools

/// Checks an image. Promises: no trap, an end, bounded memory; the report is what the format's rules say, every time;
/// nothing is changed.
enum CheckTarget {
    static func run(_ input: [UInt8]) {
        let chain = ImageRecipe.decode(input)
        guard let reference = ReferenceImage(file: chain.files[0]) else { return }
        let file = FuzzFile(chain.files[0])
        let bench = Workbench(seed: UInt64(input.count))
        guard let report = check(file, bench) else {
            require(reference.clusterCount > ClusterOwnership.largestClusterCount, "an image of a usual size is not checked")
            return
        }
        compare(report, with: reference, reference.verdict())
        require(check(file, bench) == report, "a second check says something else")
        if let place = file.content.difference(from: chain.files[0]) { fail("a check changes the file: \(place)") }
    }

    /// - Returns: nil where the file has too many clusters.
    static func check(_ file: FuzzFile, _ bench: Workbench) -> CheckReport? {
        switch run(ImageCheck(path: "disk"), on: file, bench) {
        case .success(let result): return result.report
        case .failure(ImageOpenError.tooLargeToCheck): return nil
        case .failure(let error): fail("the check fails: \(error)")
        }
    }

    static func run(_ check: ImageCheck, on file: FuzzFile, _ bench: Workbench) -> Result<ImageCheck.Result, any Error> {
        let start = file.content.bytes(at: 0, count: Int(min(file.content.length, 64)))
        guard let header = try? QEDHeader(parsing: start, fileSizeBytes: file.content.length) else {
            fail("an image that was one is none any more")
        }
        let structure = ImageStructure(
            storage: bench.storage(file), header: header, fileSizeBytes: file.content.length)
        return bench.run("the check") { () async throws in try await check.run(on: structure) }
    }

    static func compare(_ report: CheckReport, with reference: ReferenceImage, _ verdict: ReferenceImage.Verdict) {
        func equal(_ name: String, _ said: UInt64, _ true: UInt64) {
            require(said == `true`, "\(name): the check says \(said), and it is \(`true`)")
        }
        equal("invalid entries", report.invalidEntries, verdict.invalidEntries)
        equal("cross-links", report.crossLinks, verdict.crossLinks)
        equal("leaked clusters", report.leakedClusters, verdict.leakedClusters)
        equal("allocated clusters", report.allocatedClusters, verdict.allocatedClusters)
        equal("unreadable tables", report.unreadableTables, 0)
        equal("file size", report.fileSizeBytes, reference.file.length)
        require(report.needsCheck == reference.header.needsCheck, "NEED_CHECK is not what the header says")
        require(report.invalidList.count <= CheckReport.listLimit, "a list without end")
        require(report.crossLinkList.count <= CheckReport.listLimit, "a list without end")
        require(report.crossLinkList.allSatisfy { $0.owners.count <= CheckReport.listLimit }, "a list without end")
        let listed = report.invalidList.reduce(0) { $0 + $1.count }
        require(
            listed == report.invalidEntries || report.invalidList.count == CheckReport.listLimit,
            "\(listed) invalid entries are listed of \(report.invalidEntries)")
        for invalid in report.invalidList where !invalid.isL1 && !invalid.deviceRange.isEmpty {
            let clusterSize = reference.header.geometry.clusterSizeBytes
            require(
                reference.entry(ofCluster: invalid.deviceRange.lowerBound / clusterSize) == .invalid,
                "guest offset \(invalid.deviceRange.lowerBound) is listed as invalid and is not")
        }
        require(
            report.crossLinkList.allSatisfy { $0.owners.count >= 2 }, "a cluster is listed as shared that has one owner")
        require(report.isSound == verdict.isSound, "sound, and not sound")
    }
}
