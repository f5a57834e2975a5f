import FuzzImages
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// Opens a chain for reading and reads everything that its tables mention. Promises: no trap, an end, bounded memory; what
/// the format's rules say is what is read, an error where an entry on the way cannot be right; nothing is changed.
enum OpenTarget {
    static func run(_ input: [UInt8]) {
        let chain = ImageRecipe.decode(input)
        let files = chain.files.map { FuzzFile($0) }
        let bench = Workbench(seed: UInt64(input.count))
        for (file, isRaw) in zip(files, chain.isRaw) where !isRaw { readNames(file) }
        let reference = ReferenceChain(chain.files, isRaw: chain.isRaw)
        switch OpenImage.open(files, isRaw: chain.isRaw, isReadOnly: true, bench: bench) {
        case .failure(let error):
            guard case .header(let reason) = error.refusal else { fail("an image is not opened to be read: \(error)") }
            require(!reason.description.isEmpty, "an error without words")
            require(reference == nil, "the reference reads what the engine refuses")
        case .success(let open):
            guard let reference else { fail("the engine opens what the reference refuses") }
            readEverything(open, reference)
            refuseChanges(open)
            bench.checkMemory("reading")
            require(open.close() == nil, "an image that was only read cannot be closed")
        }
        for (file, before) in zip(files, chain.files) {
            if let place = file.content.difference(from: before) { fail("reading changes the file: \(place)") }
        }
    }

    /// The header goes through bytes and back; the name, if there is one, through its own rules.
    private static func readNames(_ file: FuzzFile) {
        let content = file.content
        let start = content.bytes(at: 0, count: Int(min(content.length, 64)))
        guard let header = try? QEDHeader(parsing: start, fileSizeBytes: content.length) else { return }
        require(header.encoded() == start, "a header is not what was read")
        guard let range = header.backingFileNameRange else { return }
        require(range.endFileOffset <= header.headerAreaSizeBytes, "a name outside the header area")
        do throws(QEDFormatError) {
            let name = try BackingFileName(content.bytes(at: range.fileOffset, count: range.sizeBytes))
            do throws(BackingNameError) {
                require(try !name.path(inImageAt: "/images/disk.qed").isEmpty, "a name that leads nowhere")
            } catch {
                require(!error.description.isEmpty, "an error without words")
            }
        } catch {
            require(!error.description.isEmpty, "an error without words")
        }
    }

    /// Places of the device that are worth reading: where any member maps something, and the ends of all of them.
    static func places(_ reference: ReferenceChain, limit: Int) -> [UInt64] {
        var places: [UInt64] = [0]
        for image in reference.images {
            let clusterSize = image.header.geometry.clusterSizeBytes
            for cluster in image.mappedClusters(limit: limit) {
                let (offset, overflow) = cluster.multipliedReportingOverflow(by: clusterSize)
                if !overflow { places.append(offset) }
            }
            places.append(max(image.header.imageSizeBytes, clusterSize) - clusterSize)
        }
        if let raw = reference.raw { places.append(raw.length & ~511) }
        return Array(Set(places.filter { $0 < reference.sizeBytes })).sorted()
    }

    private static func readEverything(_ open: OpenImage, _ reference: ReferenceChain) {
        let size = reference.sizeBytes
        let clusterSize = open.image.geometry.clusterSizeBytes
        for place in places(reference, limit: 96) {
            // The cluster from its start, and the place where it meets its neighbour.
            let end = min(place + min(clusterSize, 16384), size)
            compare(open, reference, place..<end)
            let border = (place | (clusterSize - 1)) &+ 1
            if border > place, border < size, clusterSize > 512 {
                compare(open, reference, (border - 512)..<min(border + 1024, size))
            }
        }
        if case .success = open.read(size, byteCount: 512) { fail("a read behind the end of the device") }
        if case .success = open.read(UInt64.max & ~511, byteCount: 512) { fail("a read behind the end of all devices") }
    }

    private static func compare(_ open: OpenImage, _ reference: ReferenceChain, _ range: Range<UInt64>) {
        let expected = (range.lowerBound / 512..<range.upperBound / 512).map { reference.sector($0) }
        let isReadable = expected.allSatisfy { $0 != nil }
        switch open.read(range.lowerBound, byteCount: Int(range.count)) {
        case .success(let bytes):
            require(isReadable, "device offsets \(range) are read through an entry that cannot be right")
            for (index, sector) in expected.enumerated() {
                let isExpected = bytes.withUnsafeBytes {
                    isSame(UnsafeRawBufferPointer(rebasing: $0[(index * 512)..<(index * 512 + 512)]), sector ?? [])
                }
                require(
                    isExpected,
                    "device offset \(range.lowerBound + UInt64(index) * 512) reads as something else")
            }
        case .failure(let errno):
            require(!isReadable, "device offsets \(range) are not read: \(errno)")
        }
    }

    private static func refuseChanges(_ open: OpenImage) {
        guard open.image.sizeBytes > 0 else { return }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 4096)
        defer { buffer.deallocate() }
        let results = open.perform([
            BlockRequest(.write, byteCount: 512, buffer: buffer), BlockRequest(.discard, byteCount: 512),
            BlockRequest(.writeZeroes, byteCount: 512),
        ])
        require(results.allSatisfy { $0 < 0 }, "an image that was opened to be read is changed")
    }
}
