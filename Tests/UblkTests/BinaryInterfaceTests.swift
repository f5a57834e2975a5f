import CSupport
import IOURing
import Testing

@testable import Ublk

/// The header asserts sizes and offsets for C; these tests assert that Swift sees the same, byte for byte.
struct BinaryInterfaceTests {
    @Test func structuresHaveTheDriversSizes() {
        #expect(MemoryLayout<cs_ublk_control_command>.size == 32)
        #expect(MemoryLayout<cs_ublk_device_info>.size == 64)
        #expect(MemoryLayout<cs_ublk_io_descriptor>.size == 24)
        #expect(MemoryLayout<cs_ublk_io_command>.size == 16)
        #expect(MemoryLayout<cs_ublk_params>.size == 152)
    }

    @Test func everyControlCommandHasItsEncodedNumber() {
        let expected: [UblkCommand: UInt32] = [
            .getQueueAffinity: 0x8020_7501, .getDeviceInfo: 0x8020_7502, .addDevice: 0xC020_7504,
            .deleteDevice: 0xC020_7505, .startDevice: 0xC020_7506, .stopDevice: 0xC020_7507,
            .setParameters: 0xC020_7508, .getParameters: 0x8020_7509, .startRecovery: 0xC020_7510,
            .endRecovery: 0xC020_7511, .getFeatures: 0x8020_7513, .deleteDeviceAsync: 0x8020_7514,
            .updateSize: 0xC020_7515, .quiesce: 0xC020_7516, .tryStopDevice: 0xC020_7517,
        ]
        for command in UblkCommand.allCases {
            #expect(command.opcode == expected[command], "\(command)")
        }
    }

    @Test func controlHeaderIsLaidOutAsTheDriverReadsIt() {
        let buffer = ControlBuffer(byteCount: 64)
        let command = ControlCommand(
            code: .startDevice, deviceID: 0x0102_0304, argument: 0x1122_3344_5566_7788, buffer: buffer)
        let bytes = withUnsafeBytes(of: command.header) { Array($0) }
        let address = UInt64(UInt(bitPattern: buffer.bytes.baseAddress))
        var expected: [UInt8] = [0x04, 0x03, 0x02, 0x01, 0xff, 0xff, 64, 0]
        expected += (0..<8).map { UInt8(truncatingIfNeeded: address >> (8 * $0)) }
        expected += [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0, 0, 0, 0, 0]
        #expect(bytes == expected)
    }

    @Test func commitStandsInTheSubmissionAsTheDriverReadsIt() {
        // Dirty before: nothing of an earlier submission may survive.
        var submission = [UInt8](repeating: 0xAA, count: 64)
        submission.withUnsafeMutableBytes { bytes in
            let sqe = bytes.baseAddress?.assumingMemoryBound(to: cs_io_uring_sqe.self)
            guard let sqe else { return }
            QueueCommands.prepare(
                CS_UBLK_COMMIT_AND_FETCH_REQ, in: sqe, device: .registered(index: 2), queue: 0x0302, tag: 0x0504,
                result: -5,
                data: TagData(commandAddress: 0xF0E0_D0C0_B0A0_9080, submissionAddress: 0x1817_1615_1413_1211),
                token: CompletionToken(rawValue: 0x0807_0605_0403_0201))
        }
        let expected: [UInt8] =
            [46, 1, 0, 0, 2, 0, 0, 0]  // opcode, fixed file, ioprio, file index
            + [0x21, 0x75, 0x10, 0xC0, 0, 0, 0, 0]  // command and the pad that must be zero
            + [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]  // addr
            + [UInt8](repeating: 0, count: 8)  // len, flags
            + [1, 2, 3, 4, 5, 6, 7, 8]  // user data
            + [0, 0, 0, 0, 0, 0, 0, 0]  // buffer index, personality, file slot
            + [0x02, 0x03, 0x04, 0x05, 0xFB, 0xFF, 0xFF, 0xFF]  // queue, tag, result
            + [0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0]  // buffer
        #expect(submission == expected)
    }

    /// `ublk_auto_buf_reg`: 16 bits of index, 8 of flags, of which 1 is the wish to get the request though its pages
    /// could not be registered; the rest 0. The command's own address must be 0 then.
    @Test func dataIsNamedByAnAddressOrByARegistration() throws {
        #expect(TagData.registered(index: 0x1234) == TagData(commandAddress: 0, submissionAddress: 0x1_1234))
        #expect(TagData.registered(index: 0) == TagData(commandAddress: 0, submissionAddress: 0x1_0000))
        let buffer = try #require(UnsafeMutableRawPointer(bitPattern: 0x7000))
        #expect(TagData.copied(buffer) == TagData(commandAddress: 0x7000, submissionAddress: 0))
    }

    /// `UBLKSRV_IO_BUF_OFFSET`, 25 bits of place in the request, 16 of tag, 12 of queue.
    @Test func dataOfARequestHasItsPlaceInTheCharacterDevice() {
        #expect(RequestMemory.deviceOffset(queue: 0, tag: 0) == 0x8000_0000)
        #expect(RequestMemory.deviceOffset(queue: 0, tag: 1) == 0x8200_0000)
        #expect(RequestMemory.deviceOffset(queue: 1, tag: 0) == 0x200_8000_0000)
        #expect(RequestMemory.deviceOffset(queue: 4095, tag: 4095) == 0x8000_0000 + 4095 << 25 + 4095 << 41)
    }

    @Test func plainDescriptorIsNotMarkedAsRegistered() {
        #expect(DeviceFile.descriptor(7).flags == 0)
        #expect(DeviceFile.descriptor(7).number == 7)
        #expect(DeviceFile.registered(index: 7).flags == 1)
    }

    @Test func resultsOfFetchesAreToldApart() {
        #expect(FetchResult(result: 0) == .request)
        #expect(FetchResult(result: 1) == .needsData)
        #expect(FetchResult(result: -19) == .aborted)
        #expect(FetchResult(result: -22) == .refused(-22))
    }

    @Test func deviceInfoIsReadFromItsPlaces() {
        var raw = cs_ublk_device_info()
        withUnsafeMutableBytes(of: &raw) { bytes in
            for index in bytes.indices { bytes[index] = UInt8(index) }
            bytes.storeBytes(of: 2, toByteOffset: 4, as: UInt16.self)
        }
        let info = UblkDeviceInfo(raw)
        #expect(info.queueCount == 0x0100)
        #expect(info.queueDepth == 0x0302)
        #expect(info.state == .quiesced)
        #expect(info.maxIOSizeBytes == 0x0B0A_0908)
        #expect(info.id == 0x0F0E_0D0C)
        #expect(info.serverProcess == 0x1312_1110)
        #expect(info.features.rawValue == 0x1F1E_1D1C_1B1A_1918)
        #expect(info.serverFlags == 0x2726_2524_2322_2120)
        #expect(info.ownerUser == 0x2B2A_2928)
        #expect(info.ownerGroup == 0x2F2E_2D2C)
    }

    private static let states: [(UInt16, UblkDeviceState, String)] = [
        (0, .dead, "dead"), (1, .live, "live"), (2, .quiesced, "quiesced"),
        (3, .failingIO, "failing I/O"), (77, .other(77), "unknown (77)"),
    ]

    @Test(arguments: states)
    func statesHaveNumbersAndNames(raw: UInt16, state: UblkDeviceState, name: String) {
        #expect(UblkDeviceState(rawValue: raw) == state)
        #expect(state.description == name)
        #expect(state.isRecoverable == (raw == 2 || raw == 3))
    }
}
