import BlockStorage
import FuzzImages
import QEDFormat
import SystemPackage

@testable import QEDEngine

/// Opens an image for writing and works on it. Promises: a damaged image is refused before anything is changed; a sound one
/// is served, reads back what was written and what was there before, and is sound after it is closed.
enum WriteTarget {
    static func run(_ input: [UInt8]) {
        let chain = ImageRecipe.decode(input)
        var rest = chain.rest
        let files = chain.files.map { FuzzFile($0) }
        let bench = Workbench(seed: UInt64(input.count))
        let session = SessionRecipe(&rest, chain.files[0])
        guard let before = ReferenceChain(chain.files, isRaw: chain.isRaw) else { return }
        let top = before.images[0]
        let verdict = top.verdict()
        let mayOpen = verdict.crossLinks == 0 && (verdict.invalidEntries == 0 || top.header.needsCheck)

        let open: OpenImage
        switch OpenImage.open(files, isRaw: chain.isRaw, isReadOnly: false, bench: bench, session: session.memory) {
        case .failure(let error):
            if mayOpen {
                require(isExcusable(error, top), "a sound image is not opened: \(error)")
            }
            for (file, before) in zip(files, chain.files) {
                if let place = file.content.difference(from: before) { fail("a refused image is changed: \(place)") }
            }
            return
        case .success(let success): open = success
        }
        require(mayOpen, "a damaged image is opened for writing")
        guard let base = ReferenceChain(files.map(\.content), isRaw: chain.isRaw) else { fail("opened, and no image") }
        require(base.images[0].verdict().isSound, "an image is served that is not sound")
        require(base.images[0].header.autoclearFeatures == 0, "autoclear bits are left set")
        if open.image.replayedChanges == 0 { compareOpened(before, base) }

        var work = GuestWork(open: open, base: base)
        work.perform(&rest)
        work.readBack()
        bench.checkMemory("the work")
        let failure = open.close()
        require(failure == nil || work.isExcused, "closing fails: \(String(describing: failure))")
        guard let after = ReferenceChain(files.map(\.content), isRaw: chain.isRaw) else { fail("closed, and no image") }
        let image = after.images[0]
        let last = image.verdict()
        require(
            last.isSound,
            "after the work there are \(last.invalidEntries) invalid entries and \(last.crossLinks) cross-links")
        if failure == nil { require(!image.header.needsCheck, "a closed image still asks for a check") }
        if failure == nil || !work.wasRefusedSpace { work.compare(with: after) }
        for (file, before) in zip(files, chain.files).dropFirst() {
            if let place = file.content.difference(from: before) { fail("a backing file is changed: \(place)") }
        }
    }

    /// Opening changes no byte of the device, except where it could not be read.
    private static func compareOpened(_ before: ReferenceChain, _ after: ReferenceChain) {
        for place in OpenTarget.places(before, limit: 64) {
            guard let sector = before.sector(place / 512) else { continue }
            require(after.sector(place / 512) == sector, "opening changes device offset \(place)")
        }
    }

    private static func isExcusable(_ error: OpenImage.RefusalError, _ image: ReferenceImage) -> Bool {
        switch error.refusal {
        case .image(.tooLargeToCheck): image.clusterCount > ClusterOwnership.largestClusterCount
        case .image(.storage(let error)): error.errno == .fileTooLarge || error.errno == .noSpace
        default: false
        }
    }
}
