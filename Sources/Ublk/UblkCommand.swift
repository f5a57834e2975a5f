import CSupport

/// The control commands, all sent through /dev/ublk-control.
public enum UblkCommand: String, CaseIterable, Sendable {
    case getFeatures = "GET_FEATURES"
    case addDevice = "ADD_DEV"
    case getDeviceInfo = "GET_DEV_INFO"
    case setParameters = "SET_PARAMS"
    case getParameters = "GET_PARAMS"
    case getQueueAffinity = "GET_QUEUE_AFFINITY"
    case startDevice = "START_DEV"
    case stopDevice = "STOP_DEV"
    case tryStopDevice = "TRY_STOP_DEV"
    case deleteDevice = "DEL_DEV"
    case deleteDeviceAsync = "DEL_DEV_ASYNC"
    case startRecovery = "START_USER_RECOVERY"
    case endRecovery = "END_USER_RECOVERY"
    case quiesce = "QUIESCE_DEV"
    case updateSize = "UPDATE_SIZE"

    /// The ioctl-encoded number, which kernels from 6.4 on accept.
    var opcode: UInt32 {
        switch self {
        case .getFeatures: CS_UBLK_GET_FEATURES
        case .addDevice: CS_UBLK_ADD_DEV
        case .getDeviceInfo: CS_UBLK_GET_DEV_INFO
        case .setParameters: CS_UBLK_SET_PARAMS
        case .getParameters: CS_UBLK_GET_PARAMS
        case .getQueueAffinity: CS_UBLK_GET_QUEUE_AFFINITY
        case .startDevice: CS_UBLK_START_DEV
        case .stopDevice: CS_UBLK_STOP_DEV
        case .tryStopDevice: CS_UBLK_TRY_STOP_DEV
        case .deleteDevice: CS_UBLK_DEL_DEV
        case .deleteDeviceAsync: CS_UBLK_DEL_DEV_ASYNC
        case .startRecovery: CS_UBLK_START_USER_RECOVERY
        case .endRecovery: CS_UBLK_END_USER_RECOVERY
        case .quiesce: CS_UBLK_QUIESCE_DEV
        case .updateSize: CS_UBLK_UPDATE_SIZE
        }
    }

    /// The first kernel that has it.
    var firstKernel: String {
        switch self {
        case .getFeatures: "6.5"
        case .deleteDeviceAsync: "6.9"
        case .quiesce, .updateSize: "6.16"
        case .tryStopDevice: "7.0"
        default: "6.4"
        }
    }

    /// Whether the command is sent again when a signal interrupted its wait (EINTR).
    ///
    /// Both wait for the queues to fetch, and start over harmlessly. An interrupted DEL_DEV must not be repeated: the
    /// device is already marked deleted, and what remains is to wait until it is gone.
    var isRepeatedWhenInterrupted: Bool { self == .startDevice || self == .endRecovery }

    /// What the command was to do, for "cannot …".
    func purpose(deviceID: UInt32?) -> String {
        let device = deviceID.map { "ublk device \($0)" } ?? "a ublk device"
        return switch self {
        case .getFeatures: "ask the ublk driver for its features"
        case .addDevice: "add \(device)"
        case .getDeviceInfo: "look up \(device)"
        case .setParameters: "set the parameters of \(device)"
        case .getParameters: "read the parameters of \(device)"
        case .getQueueAffinity: "read the queue affinity of \(device)"
        case .startDevice: "start \(device)"
        case .stopDevice, .tryStopDevice: "stop \(device)"
        case .deleteDevice, .deleteDeviceAsync: "delete \(device)"
        case .startRecovery: "begin the recovery of \(device)"
        case .endRecovery: "finish the recovery of \(device)"
        case .quiesce: "quiesce \(device)"
        case .updateSize: "change the size of \(device)"
        }
    }
}
