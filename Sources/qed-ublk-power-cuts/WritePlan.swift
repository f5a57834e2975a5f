import Simulation

/// What the writers of one boot do, from a seed: the same again after the power cut, when it is judged.
///
/// Each writer has blocks of its own, and a number for each write, counted on from boot to boot. After some of its writes it
/// flushes the disk, and notes the number of the last one.
struct WritePlan: Equatable {
    static let writers = 3
    static let writesPerWriter = 4000

    var seed: UInt64
    /// Of the first write of each writer.
    var firstNumber: Int

    struct Write: Equatable {
        var number: Int
        var block: Int
        /// Then it flushes.
        var isLastOfGroup: Bool
    }

    func writes(ofWriter writer: Int) -> [Write] {
        precondition((0..<WritePlan.writers).contains(writer), "there is no such writer")
        var random = SeededRandom(seed: seed &* 31 &+ UInt64(writer))
        var left = 1
        return (0..<WritePlan.writesPerWriter).map { index in
            let block = random.below(Layout.blocks / WritePlan.writers) * WritePlan.writers + writer
            left -= 1
            defer { if left == 0 { left = 1 + random.below(8) } }
            return Write(number: firstNumber + index, block: block, isLastOfGroup: left == 0)
        }
    }

    /// What the next boot begins with.
    var nextNumber: Int { firstNumber + WritePlan.writesPerWriter }
}
