import BlockStorage
import FuzzImages
import QEDEngine
import QEDFormat
import SystemPackage

@testable import ImageTools

/// Repairs an image. Promises: those of a check; what is reported as mended is mended and nothing else is wrong afterwards;
/// a second repair has nothing to do; no guest byte of a sound cluster changes.
enum RepairTarget {
    static func run(_ input: [UInt8]) {
        let chain = ImageRecipe.decode(input)
        var rest = chain.rest
        guard let before = ReferenceImage(file: chain.files[0]) else { return }
        let file = FuzzFile(chain.files[0])
        let bench = Workbench(seed: UInt64(input.count))
        var repair = ImageCheck(path: "disk", repair: .all)
        switch rest.byte() % 4 {
        case 0: repair.separatesCrossLinks = true
        case 1: repair.repair = .leaks
        default: break
        }
        let verdict = before.verdict()
        let sound = before.soundClusters(verdict, limit: 256)
        let result = CheckTarget.run(repair, on: file, bench)
        guard let after = ReferenceImage(file: file.content) else { fail("the repair makes the image unusable") }
        compareContent(of: sound, before, after)

        let report: ImageCheck.Result
        switch result {
        case .success(let success): report = success
        case .failure(let error):
            require(isExcusable(error, before), "the repair fails: \(error)")
            return
        }
        guard let done = report.repair else { fail("a repair without a report") }
        let verdictAfter = after.verdict()
        CheckTarget.compare(report.report, with: after, verdictAfter)
        switch repair.repair {
        case .all:
            let separates = repair.separatesCrossLinks && !done.crossLinksKept
            // What looks like entries may be data where a table shares a cluster.
            if verdict.crossLinks == 0 || separates {
                require(verdictAfter.invalidEntries == 0, "\(verdictAfter.invalidEntries) invalid entries remain")
            }
            if separates { require(verdictAfter.crossLinks == 0, "\(verdictAfter.crossLinks) cross-links remain") }
            if verdictAfter.isSound { require(!after.header.needsCheck, "a sound image still asks for a check") }
        case .leaks, .nothing:
            require(done.droppedEntries == 0 && done.separatedClusters == 0, "more is repaired than was asked for")
            if !verdict.isSound {
                // Whoever opens an image for writing clears these bits, whatever it finds.
                var expected = chain.files[0]
                expected.setWord(0, at: UInt64(QEDHeaderField.autoclearFeatures.fileOffset))
                if let place = file.content.difference(from: expected) {
                    fail("a damaged image is changed where only its leaks were to be mended: \(place)")
                }
            }
        }
        require(
            before.header.needsCheck || !after.header.needsCheck, "a repair sets NEED_CHECK")
        repairAgain(repair, done, file, bench)
    }

    private static func repairAgain(
        _ repair: ImageCheck, _ done: RepairReport, _ file: FuzzFile, _ bench: Workbench
    ) {
        var done = done
        var content = file.content
        // Where tables were dropped what they leak, and what lies behind the last cluster, is the second run's.
        for time in ["second", "third"] {
            guard case .success(let again) = CheckTarget.run(repair, on: file, bench) else { fail("the \(time) repair fails") }
            let place = file.content.difference(from: content)
            guard let report = again.repair else { fail("a repair without a report") }
            require(report.droppedEntries == 0, "the \(time) repair drops entries")
            require(report.separatedClusters == 0, "the \(time) repair separates clusters")
            if done.droppedList.contains(where: \.isL1) {
                done = report
                content = file.content
                require(report.leaksKept != .tablesDropped, "tables were dropped, but not in this run")
                continue
            }
            require(place == nil, "the \(time) repair changes the image: \(place ?? "")")
            return
        }
    }

    static func compareContent(
        of sound: [(cluster: UInt64, fileOffset: UInt64)], _ before: ReferenceImage, _ after: ReferenceImage
    ) {
        let clusterSize = before.header.geometry.clusterSizeBytes
        for (cluster, fileOffset) in sound {
            guard case .allocated(let offset) = after.entry(ofCluster: cluster) else {
                fail("sound cluster \(cluster) is \(after.entry(ofCluster: cluster)) after the repair")
            }
            for page in before.file.pageIndexes(from: fileOffset, to: fileOffset + clusterSize) {
                let distance = page * 4096 - fileOffset
                require(
                    before.file.bytes(at: fileOffset + distance, count: 4096)
                        == after.file.bytes(at: offset + distance, count: 4096),
                    "sound cluster \(cluster) has other bytes after the repair")
            }
            for page in after.file.pageIndexes(from: offset, to: offset + clusterSize) {
                let distance = page * 4096 - offset
                require(
                    before.file.bytes(at: fileOffset + distance, count: 4096)
                        == after.file.bytes(at: offset + distance, count: 4096),
                    "sound cluster \(cluster) has other bytes after the repair")
            }
        }
    }

    /// A disk that is full, a file that cannot be longer, one of more clusters than can be counted.
    private static func isExcusable(_ error: any Error, _ image: ReferenceImage) -> Bool {
        switch error {
        case let error as StorageError: error.errno == .noSpace || error.errno == .fileTooLarge
        case ImageOpenError.tooLargeToCheck: image.clusterCount > ClusterOwnership.largestClusterCount / 2
        default: false
        }
    }
}
