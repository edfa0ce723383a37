// swift-tools-version:6.2
import PackageDescription

/// Every target of ours is held to the same: Swift 6, checked memory safety, no warning left standing.
let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
]

/// What only Linux has: SEEK_HOLE, fallocate, renameat2, OFD locks.
let gnu: [CSetting] = [.define("_GNU_SOURCE")]

let package = Package(
    name: "godwit",
    products: [.executable(name: "godwit", targets: ["godwit"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.0", traits: []),
    ],
    targets: [
        .target(name: "Volumes", swiftSettings: strict),
        .target(name: "Capacity", dependencies: ["Volumes"], swiftSettings: strict),
        .target(name: "CISAL", linkerSettings: [.linkedLibrary("isal")]),
        .target(name: "Checksums", dependencies: ["CISAL", "Volumes"], swiftSettings: strict),
        .target(name: "CLZ4", linkerSettings: [.linkedLibrary("lz4")]),
        .target(name: "DirtyMap", dependencies: ["Volumes"], swiftSettings: strict),
        .target(name: "FileVolumes", dependencies: ["Volumes"], cSettings: gnu, swiftSettings: strict),
        .target(
            name: "Tracker", dependencies: ["Checksums", "Volumes"], cSettings: gnu, swiftSettings: strict),
        .target(
            name: "CCeph",
            // librados's C++ classes are marked deprecated in favour of an interface that 16.2 does not install.
            cxxSettings: [.unsafeFlags(["-Wno-deprecated-declarations"])],
            linkerSettings: [.linkedLibrary("rados"), .linkedLibrary("rbd")]),
        .target(
            name: "RBDVolumes",
            dependencies: [
                "Capacity", "CCeph", "Checksums", "DirtyMap", "Volumes",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: strict),
        .target(name: "Convergence", dependencies: ["Volumes"], swiftSettings: strict),
        .target(name: "Cutover", dependencies: ["Volumes"], swiftSettings: strict),
        .target(name: "Gate", dependencies: ["Convergence", "Cutover", "Volumes"], swiftSettings: strict),
        .target(
            name: "Guest",
            dependencies: [
                "Cutover", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            cSettings: gnu, swiftSettings: strict),
        .target(
            name: "Sockets", dependencies: ["Volumes", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: strict),
        .target(
            name: "Control",
            dependencies: [
                "Sockets", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "NBDProtocol", dependencies: ["Volumes", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: strict),
        .target(
            name: "Credentials",
            dependencies: [
                "Volumes", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"), .product(name: "NIOTLS", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "NBDServer",
            dependencies: [
                "Credentials", "NBDProtocol", "Sockets", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "NBDVolumes",
            dependencies: [
                "Credentials", "NBDProtocol", "Sockets", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "Relay",
            dependencies: [
                "Checksums", "CLZ4", "NBDProtocol", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "RelayServer",
            dependencies: [
                "Checksums", "Credentials", "NBDProtocol", "NBDServer", "Relay", "Sockets", "Volumes",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "RemoteVolumes",
            dependencies: [
                "Checksums", "NBDProtocol", "NBDVolumes", "Relay", "Sockets", "Volumes",
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .target(
            name: "Mirror", dependencies: ["Checksums", "Convergence", "Cutover", "DirtyMap", "Volumes"],
            swiftSettings: strict),
        .executableTarget(
            name: "godwit",
            dependencies: [
                "Capacity", "Control", "Convergence", "Credentials", "Cutover", "FileVolumes", "Gate", "Guest",
                "Mirror",
                "NBDServer", "NBDVolumes", "RBDVolumes", "RelayServer", "RemoteVolumes", "Tracker", "Volumes",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .target(name: "Conformance", dependencies: ["Volumes"], path: "Tests/Conformance", swiftSettings: strict),
        .testTarget(
            name: "FileVolumesTests", dependencies: ["Conformance", "FileVolumes", "Volumes"], cSettings: gnu,
            swiftSettings: strict),
        .testTarget(
            name: "GateTests", dependencies: ["Conformance", "Convergence", "Cutover", "Gate", "Mirror", "Volumes"],
            swiftSettings: strict),
        .testTarget(
            name: "TrackerTests",
            dependencies: ["Conformance", "Convergence", "Cutover", "FileVolumes", "Mirror", "Tracker", "Volumes"],
            swiftSettings: strict),
        .testTarget(name: "CapacityTests", dependencies: ["Capacity", "Volumes"], swiftSettings: strict),
        .testTarget(
            name: "ChecksumsTests", dependencies: ["Checksums", "Conformance", "Volumes"],
            swiftSettings: strict),
        .testTarget(
            name: "RelayTests",
            dependencies: [
                "Conformance", "NBDProtocol", "Relay", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "RemoteVolumesTests",
            dependencies: [
                "Conformance", "FileVolumes", "Mirror", "NBDServer", "Relay", "RelayServer", "RemoteVolumes", "Volumes",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(name: "VolumesTests", dependencies: ["Conformance", "Volumes"], swiftSettings: strict),
        .testTarget(
            name: "DirtyMapTests", dependencies: ["Conformance", "DirtyMap", "Volumes"], swiftSettings: strict),
        .testTarget(
            name: "MirrorTests",
            dependencies: [
                "Conformance", "Convergence", "Cutover", "Mirror", "NBDVolumes", "Relay", "RelayServer",
                "RemoteVolumes", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "RBDVolumesTests", dependencies: ["Conformance", "RBDVolumes", "Volumes"], swiftSettings: strict),
        .testTarget(
            name: "RBDConformanceTests", dependencies: ["Conformance", "RBDVolumes", "Volumes"], swiftSettings: strict),
        .testTarget(
            name: "ConvergenceTests", dependencies: ["Conformance", "Convergence", "Volumes"], swiftSettings: strict),
        .testTarget(
            name: "GuestTests",
            dependencies: [
                "Cutover", "Guest", "Volumes", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        // Not a part of Godwit: lets Tests/Machine drive what holds a writer.
        .executableTarget(
            name: "HoldDriver", dependencies: ["Cutover", "Guest", "Volumes"], path: "Tests/HoldDriver",
            swiftSettings: strict),
        // Nor is this: measures for Tests/Benchmarks what payloads cost.
        .executableTarget(
            name: "PackDriver", dependencies: ["CLZ4", "Checksums", "Relay"], path: "Tests/PackDriver",
            swiftSettings: strict),
        .testTarget(
            name: "NBDProtocolTests",
            dependencies: ["Conformance", "NBDProtocol", "Volumes", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: strict),
        .testTarget(
            name: "NBDServerTests",
            dependencies: [
                "Conformance", "FileVolumes", "NBDProtocol", "NBDServer", "Sockets", "Volumes",
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "NBDVolumesTests",
            dependencies: [
                "Conformance", "Mirror", "NBDProtocol", "NBDVolumes", "Volumes",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "TLSTests",
            dependencies: [
                "Credentials", "NBDProtocol", "NBDServer", "NBDVolumes", "RelayServer", "RemoteVolumes", "Sockets",
                "Volumes", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(name: "ControlTests", dependencies: ["Control", "Sockets", "Volumes"], swiftSettings: strict),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "Control", "Volumes", "godwit", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .testTarget(name: "ArchitectureTests", swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6],
    cxxLanguageStandard: .cxx17
)
