// swift-tools-version: 6.2
import PackageDescription

/// Settings of every Swift target. Cross-module optimisation lets the engine, generic over its storage, be specialised
/// where it is used; exclusivity is proved by the debug build and the tests, and costs the release build nothing.
///
/// With QED_SABOTAGE in the environment the engine is built with the faults that its simulation must find; with QED_FUZZ
/// everything is built for libFuzzer, with the address sanitizer and every check of the language.
let fuzzes = Context.environment["QED_FUZZ"] != nil
let swiftSettings: [SwiftSetting] =
    [
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .treatAllWarnings(as: .error),
        .unsafeFlags(
            ["-cross-module-optimization", "-enforce-exclusivity=\(fuzzes ? "checked" : "unchecked")"],
            .when(configuration: .release)),
    ] + (Context.environment["QED_SABOTAGE"] == nil ? [] : [.define("QED_SABOTAGE")])
    + (fuzzes ? [.unsafeFlags(["-sanitize=fuzzer,address", "-enable-testing"])] : [])

let package = Package(
    name: "qed-ublk",
    products: [
        .executable(name: "qed-ublk", targets: ["qed-ublk"]),
        .library(name: "Simulation", targets: ["Simulation"]),
        .executable(name: "qed-ublk-sim", targets: ["qed-ublk-sim"]),
        .executable(name: "qed-ublk-null", targets: ["qed-ublk-null"]),
        .executable(name: "qed-ublk-linearize", targets: ["qed-ublk-linearize"]),
        .executable(name: "qed-ublk-lifecycle", targets: ["qed-ublk-lifecycle"]),
        .executable(name: "qed-ublk-power-cuts", targets: ["qed-ublk-power-cuts"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        // C: what Swift cannot import. Linked with liburing's static library: its shared one lacks io_uring_enable_rings
        // in Debian 12, and one dependency less remains at run time.
        .target(
            name: "CSupport", path: "CSupport", publicHeadersPath: "include",
            linkerSettings: [.linkedLibrary(":liburing.a")]),
        // The same, for what comes before the first line of Swift in `qed-ublk`, and in no other program.
        .target(name: "CProgramStart", path: "CProgramStart", publicHeadersPath: "include"),
        // The same, for a server that gives up its rights.
        .target(
            name: "CConfinement", path: "CConfinement", publicHeadersPath: "include",
            linkerSettings: [.linkedLibrary("seccomp")]),

        // libnbd, which is loaded when it is needed.
        .target(name: "CNBD", path: "CNBD", publicHeadersPath: "include"),

        // What any program needs of the system, and no storage: locks, threads, which file and which boot it is.
        .target(
            name: "Platform",
            dependencies: ["CSupport", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: swiftSettings),
        .target(
            name: "IOURing",
            dependencies: ["Platform", "CSupport", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: swiftSettings),
        .target(
            name: "BlockStorage",
            dependencies: ["Platform", "IOURing", "CSupport", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: swiftSettings),
        // Bases that an NBD server has.
        .target(
            name: "NBDStorage",
            dependencies: [
                "Platform", "IOURing", "BlockStorage", "CSupport", "CNBD",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .target(name: "QEDFormat", swiftSettings: swiftSettings),
        .target(
            name: "QEDEngine",
            dependencies: [
                "Platform", "BlockStorage", "QEDFormat", "IOURing", "CSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        // Images as files: opening and creating them by their paths, with the files behind them; the engine for tools.
        .target(
            name: "QEDChain",
            dependencies: [
                "Platform", "QEDEngine", "QEDFormat", "BlockStorage", "NBDStorage", "IOURing", "CSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        // check, map, convert, resize and their like: images that nobody serves.
        .target(
            name: "ImageTools",
            dependencies: [
                "QEDChain", "Platform", "QEDEngine", "QEDFormat", "BlockStorage", "IOURing", "CSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .target(
            name: "Ublk",
            dependencies: [
                "Platform", "IOURing", "CSupport", .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .target(
            name: "DeviceServer",
            dependencies: [
                "ImageTools", "QEDChain", "NBDStorage", "Platform", "Ublk", "QEDEngine", "QEDFormat", "BlockStorage", "IOURing",
                "CSupport", "CConfinement",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .executableTarget(
            name: "qed-ublk",
            dependencies: [
                "QEDChain", "Platform", "DeviceServer", "Ublk", "ImageTools", "QEDEngine", "QEDFormat", "BlockStorage",
                "NBDStorage", "IOURing", "CSupport", "CProgramStart",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),

        // Disks that lose power, from a seed, and the proof that the engine survives them.
        .target(
            name: "Simulation",
            dependencies: [
                "Platform", "QEDEngine", "QEDFormat", "BlockStorage", "IOURing", "Ublk",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .executableTarget(
            name: "qed-ublk-sim",
            dependencies: ["Simulation", "QEDEngine", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            swiftSettings: swiftSettings),
        // Disks of a kernel, as programs use them that test some.
        .target(name: "RealDisk", dependencies: ["CSupport"], swiftSettings: swiftSettings),
        // The same judge over what threads ask of a real disk and get.
        .executableTarget(
            name: "qed-ublk-linearize",
            dependencies: [
                "Platform", "Simulation", "RealDisk", "CSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings),
        // What a power cut may take of what was written to a real disk, and what it may not.
        .executableTarget(
            name: "qed-ublk-power-cuts",
            dependencies: [
                "Platform", "Simulation", "RealDisk",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings),
        // The smallest target as a device: what the transport itself costs.
        .executableTarget(
            name: "qed-ublk-null",
            dependencies: ["Ublk", "CSupport", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            swiftSettings: swiftSettings),
        // A model of devices, servers and files, and the proof that the program keeps to it whatever is done to them.
        .executableTarget(
            name: "qed-ublk-lifecycle",
            dependencies: [
                "Platform", "Simulation", "RealDisk", "DeviceServer", "Ublk", "BlockStorage", "CSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings),

        .testTarget(
            name: "QEDEngineTests",
            dependencies: [
                "QEDChain", "NBDStorage", "Platform", "QEDEngine", "QEDFormat", "BlockStorage", "IOURing", "Simulation",
                "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "ImageToolsTests",
            dependencies: [
                "QEDChain", "ImageTools", "QEDEngine", "QEDFormat", "BlockStorage", "IOURing", "Simulation", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "SimulationTests",
            dependencies: [
                "Simulation", "QEDEngine", "BlockStorage", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "NBDStorageTests",
            dependencies: [
                "NBDStorage", "BlockStorage", "IOURing", "Platform", "Simulation", "TestSupport", "CSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "LifeCycleTests", dependencies: ["qed-ublk-lifecycle", "Simulation"], swiftSettings: swiftSettings),
        .testTarget(
            name: "PowerCutProgramTests", dependencies: ["qed-ublk-power-cuts"], swiftSettings: swiftSettings),
        .testTarget(
            name: "QEDFormatTests", dependencies: ["QEDFormat", "Simulation", "TestSupport"], swiftSettings: swiftSettings),
        .testTarget(
            name: "DeviceServerTests",
            dependencies: [
                "ImageTools", "QEDChain", "Platform", "DeviceServer", "Ublk", "QEDEngine", "BlockStorage", "IOURing", "CSupport",
                "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "UblkTests",
            dependencies: [
                "Platform", "Ublk", "IOURing", "CSupport", "Simulation", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "CommandLineTests",
            dependencies: [
                "QEDChain", "Platform", "qed-ublk", "DeviceServer", "BlockStorage", "QEDEngine", "TestSupport", "Ublk",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings),
        // Images that are made to hurt, and damage, against the program itself.
        .testTarget(
            name: "HostileImageTests",
            dependencies: [
                "QEDChain", "Platform", "qed-ublk", "DeviceServer", "ImageTools", "QEDEngine", "QEDFormat", "BlockStorage",
                "Simulation", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: swiftSettings),
        // The program beside QEMU's, each as a process of its own.
        .testTarget(
            name: "InteroperabilityTests", dependencies: ["QEDChain", "qed-ublk", "Simulation", "TestSupport"],
            exclude: ["README.md"],
            swiftSettings: swiftSettings),
        // What several test targets need: programs to run, directories to run them in.
        .target(
            name: "TestSupport", dependencies: ["Ublk", "IOURing"], path: "Tests/TestSupport", swiftSettings: swiftSettings),
    ] + fuzzTargets
)

/// The program of the fuzz targets, which is built for libFuzzer or not at all.
var fuzzTargets: [Target] {
    guard fuzzes else { return [] }
    return [
        .target(name: "FuzzMemory", path: "Fuzz/Memory"),
        // The other side of the comparison: it is not what is fuzzed, and not instrumented.
        .target(name: "FuzzImages", dependencies: ["QEDFormat"], path: "Fuzz/Images"),
        .executableTarget(
            name: "qed-ublk-fuzz",
            dependencies: [
                "QEDChain", "Platform", "FuzzImages", "FuzzMemory", "ImageTools", "QEDEngine", "QEDFormat", "BlockStorage",
                "IOURing",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            path: "Fuzz/Targets",
            swiftSettings: swiftSettings,
            linkerSettings: [.unsafeFlags(["-sanitize=fuzzer,address", "-use-ld=lld"])]),
    ]
}
