/// Pieces of the device whose content was found to be allowed, and which lie in pages of the file that all disks of one
/// comparison share: the next disk need not be read there again. Nearly all of a survivor is as in the one before.
struct JudgedClusters {
    /// The pages that the disks share; nil: nothing is remembered.
    private var shared: SparsePages?
    /// Where each piece was last found, in the order in which they are looked at; nil: in pages of that disk's own.
    private var places: [StructureWalk.Place?] = []
    private var next = 0

    /// Begins a comparison of disks that have changed copies of `pages`, under a model that stays as it is.
    mutating func begin(_ pages: SparsePages) {
        shared = pages
        places.removeAll(keepingCapacity: true)
    }

    mutating func end() { shared = nil }

    /// Begins the next disk; its pieces come in the same order as those of the one before.
    mutating func beginDisk() { next = 0 }

    /// Whether the next piece is known to be allowed; if not, it is about to be found so.
    mutating func isKnown(_ place: StructureWalk.Place, sectorCount: Int, on pages: SparsePages) -> Bool {
        guard let shared else { return false }
        defer { next += 1 }
        if next == places.count { places.append(nil) }
        if case .file(let first) = place {
            let lastPage = (first + sectorCount - 1) / SparsePages.sectorsPerPage
            for page in (first / SparsePages.sectorsPerPage)...lastPage where pages.page(page) != shared.page(page) {
                places[next] = nil
                return false
            }
        }
        if places[next] == place { return true }
        places[next] = place
        return false
    }
}
