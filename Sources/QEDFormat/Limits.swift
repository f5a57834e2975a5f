/// Every limit that this implementation puts on an image, and the reason for it.
///
/// Limits of the format itself and limits of the design are kept apart: an image beyond the former is damaged, an image
/// beyond the latter is merely not supported here.
public enum QEDLimits {
    // MARK: The format

    /// The header proper. What follows it in the header area belongs to strings and to future extensions.
    public static let headerSizeBytes = 64

    /// The unit of image sizes, of partial table writes and of QEMU's view of the file length.
    public static let sectorSizeBytes: UInt64 = 512

    /// The low 12 bits of a table entry are reserved, so a cluster cannot be smaller than 2^12 bytes.
    public static let minimumClusterSizeBytes: UInt64 = 1 << 12

    /// Set by the format.
    public static let maximumClusterSizeBytes: UInt64 = 1 << 26

    /// Set by the format; clusters per L1 or L2 table.
    public static let maximumTableSizeClusters: UInt64 = 16

    /// The backing file name's position is a 32-bit field, so the header area ends below 2^32.
    public static let maximumHeaderAreaSizeBytes: UInt64 = 0xffff_ffff

    // MARK: The platform

    /// The largest image. File offsets are signed 64-bit numbers, and QEMU keeps 2^30 bytes free below their end so
    /// that its alignment of requests cannot overflow; an image above that could never be shared with it.
    public static let maximumImageSizeBytes: UInt64 = (1 << 63) - (1 << 30)

    /// The largest file length the kernel can report.
    public static let maximumFileSizeBytes: UInt64 = (1 << 63) - 1

    /// The longest backing file name: the kernel takes paths of up to 4095 bytes and a terminator (`PATH_MAX`).
    /// QEMU has the same limit.
    public static let maximumBackingFileNameSizeBytes = 4095

    // MARK: The design

    /// The largest L1 or L2 table. The format would allow 1 GiB, which a small file could make us read and hold. This
    /// bound covers every geometry QEMU can open: its largest tables are 16 clusters of 1 MiB and 8 clusters of 2 MiB.
    public static let maximumTableSizeBytes: UInt64 = 16 << 20
}
