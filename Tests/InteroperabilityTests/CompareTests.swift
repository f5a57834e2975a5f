import Foundation
import TestSupport
import Testing

/// iotest 048: both comparisons say the same, word for word, of the same two disks.
@Suite struct CompareTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    private func expectSameWords(
        _ arguments: [String], _ status: Int32, _ text: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        for party in Party.allCases {
            let result = try bench.image(party, ["compare"] + arguments)
            #expect(result.status == status, "\(party): \(result.errors)", sourceLocation: sourceLocation)
            #expect(result.output == text, "\(party)", sourceLocation: sourceLocation)
        }
    }

    @Test("iotest 048: contents, sizes, and what is strict", arguments: Geometry.all, Party.allCases)
    func comparisons(_ geometry: Geometry, creator: Party) throws {
        let cluster = geometry.clusterSizeBytes
        try bench.create("a", 4 * cluster, geometry, by: creator)
        try bench.create("b", 4 * cluster, geometry, by: creator.other)
        for (name, party) in [("a", creator), ("b", creator.other)] {
            try bench.play(["write -P 1 \(cluster) 4096"], on: name, by: party)
        }
        let formats = ["-f", "qed", "-F", "qed"]
        try expectSameWords(formats + ["a", "b"], 0, "Images are identical.\n")
        try expectSameWords(formats + ["-s", "a", "b"], 0, "Images are identical.\n")
        try expectSameWords(formats + ["-q", "a", "b"], 0, "")

        // Zeros that one has and the other has not. This program writes no zeroes where there are none to be hidden.
        try bench.play(["write -z \(2 * cluster) \(cluster)"], on: "b", by: .ours)
        try expectSameWords(formats + ["-s", "a", "b"], 0, "Images are identical.\n")
        try bench.play(["write -z \(2 * cluster) \(cluster)"], on: "b", by: .qemu)
        try expectSameWords(formats + ["a", "b"], 0, "Images are identical.\n")
        try expectSameWords(
            formats + ["-s", "a", "b"], 1, "Strict mode: Offset \(2 * cluster) block status mismatch!\n")

        // A larger disk, first with zeros behind the end of the other.
        try bench.require(.qemu, "resize", "-q", "-f", "qed", "b", "\(6 * cluster)")
        try expectSameWords(formats + ["a", "b"], 0, "Warning: Image size mismatch!\nImages are identical.\n")
        try expectSameWords(formats + ["-s", "a", "b"], 1, "Strict mode: Image size mismatch!\n")
        try bench.play(["write -P 5 \(5 * cluster) 512"], on: "b", by: creator)
        try expectSameWords(
            formats + ["b", "a"], 1, "Warning: Image size mismatch!\nContent mismatch at offset \(5 * cluster)!\n")

        try bench.play(["write -P 2 \(cluster + 1024) 512"], on: "a", by: creator)
        try expectSameWords(formats + ["a", "b"], 1, "Content mismatch at offset \(cluster + 1024)!\n")
        try expectSameWords(formats + ["-q", "a", "b"], 1, "")
    }

    @Test("iotest 048: what cannot be compared")
    func failures() throws {
        try bench.create("a", mib, by: .ours)
        expectRefusal(try bench.ours("compare", "a", "none"), 2, naming: "none")
        #expect(try bench.qemuImage("compare", "-f", "qed", "-F", "qed", "a", "none").status == 2)
        try bench.play(["write -P 1 0 4k"], on: "a", by: .ours)
        try ImageEditor(bench.path("a")).setL2Entry(0, 0, 1 << 50)
        try bench.create("b", mib, by: .ours)
        expectRefusal(try bench.ours("compare", "a", "b"), 2, naming: "a: ")
        #expect(try bench.qemuImage("compare", "-f", "qed", "-F", "qed", "a", "b").status > 1)
    }
}
