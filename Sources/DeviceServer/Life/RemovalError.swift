import Platform
import Ublk

/// Why a device was not removed.
public enum RemovalError: Error, CustomStringConvertible {
    /// By its server, or because of what it is used for.
    case refused(isBusy: Bool, String)
    /// What its record says is of an earlier device.
    case gone(String, image: String)
    /// Its server runs, and its control socket is gone.
    case unreachable(String, Int32)
    /// By a process that this program has no record of.
    case served(String, by: Int32)

    public var description: String {
        switch self {
        case .refused(_, let sentence): sentence
        case .gone(let device, let image):
            "the record of \(device) was that of an earlier device, of \(image), which is gone, and is removed; the one that has "
                + "its number now is another: see 'qed-ublk list'"
        case .unreachable(let device, let process):
            "the server of \(device) (process \(process)) cannot be asked, as it has no control socket: it is about to end, or "
                + "somebody has removed the socket, and then 'kill \(process)' removes the device once nobody uses it"
        case .served(let device, let process):
            "\(device) is served by \(ProcessFiles.name(ofProcess: process)) (process \(process)), of which there is no record: "
                + "if it is qed-ublk, 'kill \(process)' removes the device once nobody uses it"
        }
    }
}
