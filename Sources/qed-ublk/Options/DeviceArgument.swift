import ArgumentParser

/// Of the commands that are about one device.
struct DeviceArgument: ParsableArguments {
    @Argument(help: "The device: /dev/ublkb0, ublkb0, 0, or its image's path.", transform: PathArgument.parse)
    var device: String
}
