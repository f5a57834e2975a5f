/// What a file with the contents of a disk can be. Formats are never guessed.
public enum DiskFormat: String, Sendable, CaseIterable {
    case raw
    case qed
}
