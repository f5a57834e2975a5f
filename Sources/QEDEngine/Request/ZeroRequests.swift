import BlockStorage
import Glibc
import QEDFormat
import SystemPackage

/// Discard and write zeroes, as planned (`ZeroPlan`).
extension SlowRequests {
    /// - Parameter isDiscard: content need not become zeros; only space is given back.
    func zero(
        _ id: RequestID, _ range: Range<UInt64>, isDiscard: Bool, keepsSpace: Bool
    ) async throws(RequestError) {
        var position = range.lowerBound
        while position < range.upperBound {
            if let failure = image.failure { throw failure }
            let done: UInt64
            switch image.planZeroes(position, to: range.upperBound, isDiscard: isDiscard, counters: files.counters) {
            case .skip(let end):
                done = end
            case .punch(let fileOffset, let end):
                try await zeroInPlace(fileOffset, byteCount: end - position, isDiscard: isDiscard, keepsSpace: keepsSpace)
                done = end
            case .writeZeros(let end):
                try await writeZeros(id, position..<end)
                done = end
            case .blocked(let obstacle):
                try await wait(for: obstacle, id)
                continue
            }
            precondition(done > position && done <= range.upperBound, "a piece of nothing, or of more than was asked for")
            position = done
        }
    }

    private func zeroInPlace(
        _ fileOffset: UInt64, byteCount: UInt64, isDiscard: Bool, keepsSpace: Bool
    ) async throws(RequestError) {
        precondition(
            fileOffset >= image.geometry.clusterSizeBytes && byteCount > 0, "zeros over the header, or nowhere")
        defer { files.markUnsynced() }
        let byteCount = isSabotaged(.punchTooMuch) ? byteCount + QEDLimits.sectorSizeBytes : byteCount
        do {
            if keepsSpace {
                try await files.top.zeroRange(fileOffset: fileOffset, byteCount: byteCount)
            } else {
                try await files.top.punchHole(fileOffset: fileOffset, byteCount: byteCount)
            }
        } catch {
            // The file system cannot: a discard is then nothing, zeroes are written.
            guard error.errno == .notSupported || error.errno == Errno(rawValue: ENOSYS) else {
                throw .storage(error.errno)
            }
            if isDiscard { return }
            var done: UInt64 = 0
            while done < byteCount {
                let piece = min(byteCount - done, UInt64(staging.bufferBytes))
                try await files.write(staging.zeros, byteCount: Int(piece), fileOffset: fileOffset + done)
                done += piece
            }
        }
    }

    /// Writes zeros as a request would: allocates and fills where need be.
    private func writeZeros(_ id: RequestID, _ range: Range<UInt64>) async throws(RequestError) {
        precondition(!range.isEmpty && range.upperBound <= image.sizeBytes, "zeros for nothing, or outside the device")
        var position = range.lowerBound
        while position < range.upperBound {
            let end = min(position + UInt64(staging.bufferBytes), range.upperBound)
            try await write(id, position..<end, from: staging.zeros)
            position = end
        }
    }
}
