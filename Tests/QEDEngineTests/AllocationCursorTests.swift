import Testing

@testable import QEDEngine

/// The cursor hands out what is durably there, and nothing else.
@Suite struct AllocationCursorTests {
    private let clusterBytes: UInt64 = 65536

    private func cursor(clusters: UInt64 = 5) -> AllocationCursor {
        AllocationCursor(clusterSizeBytes: clusterBytes, endOfClusters: clusters * clusterBytes)
    }

    @Test func nothingIsHandedOutBeforeAnExtension() {
        var cursor = cursor()
        #expect(cursor.reserve(1) == nil)
        #expect(cursor.availableClusters == 0)
    }

    @Test func clustersAreContiguousAndBelowTheDurableEnd() {
        var cursor = cursor()
        guard case .extend(let from, let end, let leastEnd) = cursor.beginExtension(atLeast: 3) else {
            Issue.record("an extension was due")
            return
        }
        #expect(from == 5 * clusterBytes)
        #expect(leastEnd == 8 * clusterBytes)
        #expect(end == from + AllocationCursor.standardSmallestChunkBytes)
        // Not durable yet.
        #expect(cursor.reserve(1) == nil)
        cursor.extensionEnded(at: end)
        #expect(cursor.reserve(1) == 5 * clusterBytes)
        #expect(cursor.reserve(2) == 6 * clusterBytes)
        let rest = Int(AllocationCursor.standardSmallestChunkBytes / clusterBytes) - 3
        #expect(cursor.reserve(rest + 1) == nil)
        #expect(cursor.reserve(rest) == 8 * clusterBytes)
        #expect(cursor.reserve(1) == nil)
        #expect(cursor.nextFileOffset == end)
    }

    @Test func onlyOneExtensionRunsAtATime() {
        var cursor = cursor()
        guard case .extend(_, let end, _) = cursor.beginExtension(atLeast: 1) else {
            Issue.record("an extension was due")
            return
        }
        #expect(cursor.beginExtension(atLeast: 1) == .wait)
        #expect(cursor.beginTrim() == nil)
        cursor.extensionEnded(at: end)
        #expect(cursor.beginExtension(atLeast: 1) != .wait)
    }

    @Test func aFailedExtensionChangesNothing() {
        var cursor = cursor()
        _ = cursor.beginExtension(atLeast: 1)
        cursor.extensionEnded(at: nil)
        #expect(cursor.reserve(1) == nil)
        guard case .extend(let from, _, _) = cursor.beginExtension(atLeast: 1) else {
            Issue.record("the extension can be tried again")
            return
        }
        #expect(from == 5 * clusterBytes)
    }

    @Test func chunksGrowToABound() {
        var cursor = cursor()
        var sizes: [UInt64] = []
        for _ in 0..<10 {
            guard case .extend(let from, let end, _) = cursor.beginExtension(atLeast: cursor.availableClusters + 1) else {
                Issue.record("an extension was due")
                return
            }
            sizes.append(end - from)
            cursor.extensionEnded(at: end)
        }
        #expect(sizes == [23, 24, 25, 26, 27, 28, 28, 28, 28, 28].map { 1 << $0 })
    }

    @Test func aRequestLargerThanAChunkGetsWhatItNeeds() {
        var cursor = cursor()
        guard case .extend(let from, let end, let leastEnd) = cursor.beginExtension(atLeast: 1000) else {
            Issue.record("an extension was due")
            return
        }
        #expect(end == leastEnd)
        #expect(end - from == 1000 * clusterBytes)
    }

    @Test func whatIsTrimmedIsNotHandedOut() {
        var cursor = cursor()
        guard case .extend(_, let end, _) = cursor.beginExtension(atLeast: 1) else {
            Issue.record("an extension was due")
            return
        }
        cursor.extensionEnded(at: end)
        _ = cursor.reserve(2)
        #expect(cursor.beginTrim() == 7 * clusterBytes)
        #expect(cursor.reserve(1) == nil)
        #expect(cursor.beginExtension(atLeast: 1) == .wait)
        cursor.trimEnded(succeeded: true)
        #expect(cursor.beginTrim() == nil, "the image is clean")
        // The space behind may be there or not: it must be extended again before it is used.
        #expect(cursor.reserve(1) == nil)
        guard case .extend(let from, _, _) = cursor.beginExtension(atLeast: 1) else {
            Issue.record("an extension was due")
            return
        }
        #expect(from == 7 * clusterBytes)
    }

    @Test func whatIsGivenBackIsHandedOutAgainFirst() {
        var cursor = AllocationCursor(clusterSizeBytes: 65536, endOfClusters: 65536)
        guard case .extend(_, let end, _) = cursor.beginExtension(atLeast: 8) else {
            Issue.record("nothing was to be extended")
            return
        }
        cursor.extensionEnded(at: end)
        let first = cursor.reserve(3)
        let second = cursor.reserve(1)
        #expect(first == 65536 && second == 4 * 65536)
        cursor.giveBack(at: 65536, clusters: 3)
        let larger = cursor.reserve(4)
        #expect(larger == 5 * 65536, "it does not fit")
        let one = cursor.reserve(1)
        let rest = cursor.reserve(2)
        let new = cursor.reserve(1)
        #expect(one == 65536 && rest == 2 * 65536 && new == 9 * 65536)
        cursor.giveBack(at: 65536, clusters: 1)
        _ = cursor.beginTrim()
        let whileTrimming = cursor.reserve(1)
        #expect(whileTrimming == nil)
        cursor.trimEnded(succeeded: true)
        let after = cursor.reserve(1)
        #expect(after == 65536)
    }
}
