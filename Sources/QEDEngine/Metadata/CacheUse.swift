import Platform
import QEDFormat

/// What the pages of one cache take, and how many had to make room for others.
public struct PageUse: Equatable, Sendable {
    /// In memory, or on their way into it.
    public var pages: Int
    /// What there is room for.
    public var pageLimit: Int
    public var evictions: UInt64

    public init(pages: Int, pageLimit: Int, evictions: UInt64) {
        self.pages = pages
        self.pageLimit = pageLimit
        self.evictions = evictions
    }

    public var bytes: Int { pages * QEDGeometry.l2PageSizeBytes }
    public var budgetBytes: Int { pageLimit * QEDGeometry.l2PageSizeBytes }

    static func + (left: PageUse, right: PageUse) -> PageUse {
        PageUse(
            pages: left.pages + right.pages, pageLimit: left.pageLimit + right.pageLimit,
            evictions: left.evictions &+ right.evictions)
    }
}

/// What an image has of tables in memory: one for all of its queues.
public struct CacheUse: Equatable, Sendable {
    /// Pages of the image's own L2 tables.
    public var l2: PageUse
    /// Pages of the chain; nil where it has no more than one QED file.
    public var chain: PageUse?

    public init(l2: PageUse, chain: PageUse?) {
        self.l2 = l2
        self.chain = chain
    }
}

extension Image {
    /// Any thread.
    var cacheUse: CacheUse { CacheUse(l2: state.withLock { $0.cache.use }, chain: resolved?.use) }
}
