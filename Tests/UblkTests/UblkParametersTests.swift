import CSupport
import Testing

@testable import Ublk

struct UblkParametersTests {
    private static let pageSizeBytes = 4096
    private static let maxIOSizeBytes = 512 << 10

    private static func parameters(
        _ change: (inout UblkParameters) -> Void = { _ in }
    ) -> UblkParameters {
        var parameters = UblkParameters(
            basic: .init(
                attributes: [.volatileCache, .forceUnitAccess], optimalIOShift: 16, maxSectors: 1024,
                deviceSectors: 1 << 21),
            discard: .init(granularityBytes: 65536))
        change(&parameters)
        return parameters
    }

    private static func violation(
        pageSizeBytes: Int = pageSizeBytes, maxIOSizeBytes: Int = maxIOSizeBytes,
        _ change: (inout UblkParameters) -> Void = { _ in }
    ) -> UblkParameterViolation? {
        do {
            try parameters(change).validate(maxIOSizeBytes: maxIOSizeBytes, pageSizeBytes: pageSizeBytes)
            return nil
        } catch {
            return error
        }
    }

    @Test func ordinaryParametersAreAccepted() {
        #expect(Self.violation() == nil)
        #expect(Self.violation { $0.discard = nil } == nil)
    }

    @Test func logicalBlockIsAtLeastASectorAndAtMostAPage() {
        #expect(Self.violation { $0.basic.logicalBlockShift = 8 } == .logicalBlockShift(8, allowed: 9...12))
        #expect(Self.violation { $0.basic.logicalBlockShift = 12 } == nil)
        #expect(
            Self.violation {
                $0.basic.logicalBlockShift = 13
                $0.basic.physicalBlockShift = 13
            } == .logicalBlockShift(13, allowed: 9...12))
        #expect(
            Self.violation(pageSizeBytes: 65536) {
                $0.basic.logicalBlockShift = 13
                $0.basic.physicalBlockShift = 13
            } == nil)
    }

    @Test func physicalBlockIsNotSmallerThanTheLogical() {
        #expect(
            Self.violation {
                $0.basic.logicalBlockShift = 12
                $0.basic.physicalBlockShift = 11
            } == .physicalBlockBelowLogical(physicalShift: 11, logicalShift: 12))
    }

    @Test func sizesEndAt256MiB() {
        #expect(
            Self.violation {
                $0.basic.physicalBlockShift = 28
                $0.basic.minimumIOShift = 28
                $0.basic.optimalIOShift = 28
            } == nil)
        #expect(
            Self.violation { $0.basic.physicalBlockShift = 29 } == .sizeAbove256MiB(name: "physical block", shift: 29))
        #expect(
            Self.violation { $0.basic.minimumIOShift = 29 } == .sizeAbove256MiB(name: "minimum I/O size", shift: 29))
        #expect(
            Self.violation { $0.basic.optimalIOShift = 255 } == .sizeAbove256MiB(name: "optimal I/O size", shift: 255))
    }

    @Test func requestsAreBetweenAPageAndTheNegotiatedSize() {
        #expect(Self.violation { $0.basic.maxSectors = 7 } == .maxSectors(7, allowed: 8...1024))
        #expect(Self.violation { $0.basic.maxSectors = 8 } == nil)
        #expect(Self.violation { $0.basic.maxSectors = 1025 } == .maxSectors(1025, allowed: 8...1024))
        #expect(
            Self.violation(pageSizeBytes: 65536) { $0.basic.maxSectors = 127 } == .maxSectors(127, allowed: 128...1024))
        #expect(Self.violation(maxIOSizeBytes: 0) == .ioSizeBelowPage(sizeBytes: 0))
        #expect(Self.violation(maxIOSizeBytes: -1) == .ioSizeBelowPage(sizeBytes: -1))
    }

    @Test func discardNeedsAGranularityAndOneSegment() {
        #expect(Self.violation { $0.discard?.granularityBytes = 0 } == .discardGranularityZero)
        #expect(Self.violation { $0.discard?.maxSegments = 2 } == .discardSegments(2))
        #expect(
            Self.violation {
                $0.discard?.maxSegments = 0
                $0.discard?.maxDiscardSectors = 0
            } == nil)
    }

    @Test func everyViolationIsOneSentence() {
        let violations: [UblkParameterViolation] = [
            .logicalBlockShift(8, allowed: 9...12), .physicalBlockBelowLogical(physicalShift: 9, logicalShift: 12),
            .sizeAbove256MiB(name: "physical block", shift: 29), .maxSectors(1, allowed: 8...16),
            .ioSizeBelowPage(sizeBytes: 1), .discardGranularityZero, .discardSegments(3),
        ]
        #expect(Set(violations.map(\.description)).count == violations.count)
        for violation in violations { #expect(!violation.description.contains("\n")) }
    }

    @Test func encodingPutsEachValueInItsPlace() {
        let parameters = UblkParameters(
            basic: .init(
                attributes: [.readOnly, .forceUnitAccess], logicalBlockShift: 9, physicalBlockShift: 12,
                optimalIOShift: 16, minimumIOShift: 13, maxSectors: 0x0102_0304, chunkSectors: 0x0506_0708,
                deviceSectors: 0x1112_1314_1516_1718, virtualBoundaryMask: 0x2122_2324_2526_2728),
            discard: .init(
                alignmentBytes: 0x3132_3334, granularityBytes: 0x4142_4344, maxDiscardSectors: 0x5152_5354,
                maxWriteZeroesSectors: 0x6162_6364, maxSegments: 0x7172))
        let bytes = withUnsafeBytes(of: parameters.encoded()) { Array($0) }
        func little(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
        }
        var expected = little(152, 4) + little(3, 4)
        expected += little(9, 4) + [9, 12, 16, 13] + little(0x0102_0304, 4) + little(0x0506_0708, 4)
        expected += little(0x1112_1314_1516_1718, 8) + little(0x2122_2324_2526_2728, 8)
        expected += little(0x3132_3334, 4) + little(0x4142_4344, 4) + little(0x5152_5354, 4) + little(0x6162_6364, 4)
        expected += little(0x7172, 2)
        expected += [UInt8](repeating: 0, count: 152 - expected.count)
        #expect(bytes == expected)
        #expect(UblkParameters(parameters.encoded()) == parameters)
    }

    @Test func withoutDiscardTheTypeIsNotNamed() {
        let parameters = Self.parameters { $0.discard = nil }
        #expect(parameters.encoded().types == CS_UBLK_PARAM_TYPE_BASIC)
        #expect(UblkParameters(parameters.encoded()) == parameters)
    }

    @Test func parametersThatWereNeverSetAreNone() {
        var raw = cs_ublk_params()
        raw.types = CS_UBLK_PARAM_TYPE_DEVT
        #expect(UblkParameters(raw) == nil)
    }
}
