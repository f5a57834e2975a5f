/// How an input describes the files of a chain, in few bytes; see the README. Every input describes something.
///
///     0      the mode: `raw` for the bytes of a file as they are, anything else for a recipe
///     1 …    the header of the image (`HeaderRecipe`), then items, each a byte and its arguments
package enum ImageRecipe {
    package static let raw: UInt8 = 0xff

    package enum Item: UInt8, CaseIterable {
        /// Gives a device cluster data, as an engine would: a table where there is none, a cluster, an entry.
        case map
        /// The same without data: a zero cluster.
        case mapZero
        /// Sets an entry of the L1 table.
        case l1Entry
        /// Sets an entry of the table that an L1 entry names.
        case l2Entry
        /// Sets neighbouring entries.
        case run
        /// Sets a word anywhere in the first clusters.
        case poke
        /// Sets a header field.
        case field
        /// Puts content into a cluster of the file.
        case content
        /// Puts a name behind the header.
        case name
        /// Begins the next member of the chain.
        case member
        /// Ends the chain; what follows belongs to the target.
        case end
    }

    package struct Chain {
        package var files: [SparseFile] = []
        package var isRaw: [Bool] = []
        /// For the target.
        package var rest: ByteReader
    }

    package static func decode(_ input: [UInt8]) -> Chain {
        var reader = ByteReader(input)
        if reader.byte() == raw {
            var file = SparseFile()
            let extra = lengthExtra(reader.byte())
            file.write(reader.rest, at: 0)
            file.setLength(min(file.length + extra, SparseFile.longest))
            return Chain(files: [file], isRaw: [false], rest: ByteReader(Array(input.suffix(48))))
        }
        var chain = Chain(rest: reader)
        var ended = false
        while !ended && chain.files.count < 3 {
            if !chain.files.isEmpty, let header = chain.files.last?.word(at: 16), header & 4 != 0 {
                ended = appendRawFile(to: &chain, &reader)
                break
            }
            var builder = MemberBuilder(header: HeaderRecipe(&reader))
            ended = builder.build(&reader)
            chain.files.append(builder.finished())
            chain.isRaw.append(false)
        }
        chain.rest = reader
        return chain
    }

    /// A raw file at the end of the chain: a length and a few sectors of content.
    private static func appendRawFile(to chain: inout Chain, _ reader: inout ByteReader) -> Bool {
        var file = SparseFile()
        file.setLength(reader.half() * 512 + UInt64(reader.byte()))
        for _ in 0..<4 where file.length >= 512 {
            let sector = reader.half() % (file.length / 512)
            file.write(tagged(0xbacc_0000 | sector, sectors: 1), at: sector * 512)
        }
        chain.files.append(file)
        chain.isRaw.append(true)
        return true
    }

    package static func lengthExtra(_ selector: UInt8) -> UInt64 {
        switch selector {
        case 1: 1
        case 2: 511
        case 3: 512
        case 4: 513
        case 5: 4095
        case 6: 1 << 20
        case 7: 1 << 32
        case 8: 1 << 40
        case 9: 1 << 45
        case 10: 1 << 45 + 4096
        case 11: 1 << 62
        case 12: .max >> 1
        case 13...63: UInt64(selector) << 12
        default: 0
        }
    }

    /// Sectors of which each is like no other.
    package static func tagged(_ tag: UInt64, sectors: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: sectors * 512) { buffer, count in
            count = sectors * 512
            // SAFETY: the buffer has room for `count` bytes, which are written by words of 8.
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            for sector in 0..<sectors {
                let word = ((tag &+ 1) &* 0x9e37_79b9_7f4a_7c15) ^ UInt64(sector) | 1
                for index in 0..<64 {
                    bytes.storeBytes(
                        of: (word &+ UInt64(index) << 32).littleEndian, toByteOffset: sector * 512 + index * 8,
                        as: UInt64.self)
                }
            }
        }
    }
}
