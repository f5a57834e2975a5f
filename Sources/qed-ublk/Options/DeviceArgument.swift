import ArgumentParser

/// Of the commands that are about one device.
struct DeviceArgument: ParsableArguments {
    static let help: ArgumentHelp = "The device: /dev/ublkb0, or a link to it, ublkb0, 0, or its image's path."

    @Argument(help: DeviceArgument.help, transform: PathArgument.parse)
    var device: String
}
