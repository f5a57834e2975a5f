import ArgumentParser
import DeviceServer

/// Of the commands that are about one device.
struct DeviceArgument: ParsableArguments {
    static let help: ArgumentHelp = "The device: /dev/ublkb0, or a link to it, ublkb0, 0, or its image's path."

    /// What a shell offers: the devices that there are.
    static let completion = CompletionKind.custom { _, _, _ in ((try? KnownDevices.all()) ?? []).map(\.path) }

    @Argument(help: DeviceArgument.help, completion: DeviceArgument.completion, transform: PathArgument.parse)
    var device: String
}
