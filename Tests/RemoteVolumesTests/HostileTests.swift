import Conformance
import FileVolumes
import Foundation
import NBDServer
import NIOCore
import NIOPosix
import Relay
import RemoteVolumes
import Testing
import Volumes

@testable import RelayServer

/// Clients that ask for what isn't theirs, and those that aren't clients.
struct HostileTests {
    @Test(
        arguments: [
            "rbd:slow/v", "rbd:slow/v.godwit-moved", "rbd:slow/a\\:b", "rbd:ten/ant/v", "rbd:p\\/q/v",
            "file:/allowed/v", "file:/allowed/folder/v", "file:/allowed/..v",
        ])
    func `what is allowed is let through`(text: String) throws {
        #expect(try Self.allowances().grant(text) != nil)
    }

    @Test(
        arguments: [
            "", "rbd:", "rbd:slow", "rbd:slow/", "rbd:/v", "rbd:fast/v", "rbd:slow/ten/v", "rbd:ten/v",
            "rbd:ten/ant/more/v", "rbd:ten//v", "rbd:slow/v@s", "rbd:slow/v:conf=/etc/other.conf",
            "rbd:slow/v:id=admin",
            "rbd:slow/v:keyring=/tmp/k", "rbd:slow\0/v", "rbd:Slow/v", "rbd:slow /v", "rbd:slo\u{301}w/v", "rbd:p/q/v",
            "/allowed/v", "file:/allowed", "file:/allowed/", "file:allowed/v", "file:/allowed/../secret",
            "file:/allowed/./v", "file:/allowed//v", "file:/allowedmore/v", "file:/other/v", "file:/allowed/v\0",
            "file:/allowed/folder/../../v", "file:/", "file:", "nbd://localhost/v", "godwit://localhost/rbd:slow/v",
            "file:/ALLOWED/v",
        ])
    func `what isn't allowed is refused`(text: String) throws {
        #expect(try Self.allowances().grant(text) == nil)
    }

    private static func allowances() throws -> Allowances {
        Allowances(
            try ["rbd:slow", "rbd:ten/ant:id=mover", "rbd:p\\/q", "file:/allowed"].map { try Allowance($0) })
    }

    @Test(arguments: [
        "", "slow", "rbd:", "rbd:a/b/c", "rbd:slow/v@s", "file:relative", "file:/a/../b", "file:", "nbd://h/e",
    ])
    func `nothing else can be allowed`(text: String) {
        #expect(throws: Allowance.ParseError.self) { try Allowance(text) }
    }

    @Test func `the cluster is reached as the operator said`() throws {
        let allowances = Allowances([try Allowance("rbd:slow/ns:conf=/etc/west.conf:id=mover")])
        #expect(allowances.grant("rbd:slow/ns/v")?.address.text == "rbd:slow/ns/v:conf=/etc/west.conf:id=mover")
    }

    @Test func `a data pool is another pool`() throws {
        let allowances = Allowances(
            try ["rbd:slow", "rbd:ec", "rbd:west:conf=/w", "rbd:ns/t", "rbd:ecns/t"].map { try Allowance($0) })
        let grant = try #require(allowances.grant("rbd:slow/v"))
        #expect(allowances.allowsDataPool("ec", with: grant) && allowances.allowsDataPool("slow", with: grant))
        #expect(!allowances.allowsDataPool("west", with: grant) && !allowances.allowsDataPool("other", with: grant))
        let tenant = try #require(allowances.grant("rbd:ns/t/v"))
        #expect(allowances.allowsDataPool("ecns", with: tenant) && !allowances.allowsDataPool("ec", with: tenant))
    }

    @Test func `a refusal tells nothing of what there is`() async throws {
        try await withReceiver { receiver in
            try Data("x".utf8).write(to: URL(filePath: receiver.scratch.file("there")))
            try FileManager.default.createSymbolicLink(
                atPath: receiver.scratch.file("link"), withDestinationPath: "/etc/passwd")
            try FileManager.default.createSymbolicLink(
                atPath: receiver.scratch.file("folder"), withDestinationPath: "/etc")
            try FileManager.default.createSymbolicLink(
                atPath: receiver.scratch.file("new.godwit-unfinished"), withDestinationPath: "/etc/passwd")
            var words: Set<String> = []
            for target in [
                "rbd:fast/v", "file:/etc/passwd", "file:/nonexistent/v", "file:\(receiver.scratch.file("link"))",
                "file:\(receiver.scratch.file("folder"))/passwd", "file:\(receiver.scratch.file("new"))",
                "file:\(receiver.scratch.path)/../v", "rbd:slow/v:conf=/etc/ceph/other.conf",
            ] {
                do {
                    _ = try await receiver.connect(target)
                    Issue.record("\(target) was let through")
                } catch let error as VolumeError {
                    #expect(error.kind == .forbidden)
                    words.insert(error.reason)
                }
            }
            #expect(words.count == 1, "\(words)")
            _ = try await receiver.connect("file:\(receiver.scratch.file("there"))")
        }
    }

    @Test func `data in a pool that isn't allowed is refused before anything is made`() async throws {
        try await withReceiver { receiver in
            var source = VolumeDescription(identity: "x", size: .mebibytes(1))
            source.layout = Layout(
                objectSize: .mebibytes(4), stripeUnit: .mebibytes(4), stripeCount: 1, dataPool: "secret", features: [])
            let target = try await receiver.connect()
            #expect(try await target.obstacles(to: source, room: .zero).map(\.kind) == [.forbidden])
            do throws(VolumeError) {
                try await target.make(as: source, record: "r")
                Issue.record("it was made")
            } catch {
                #expect(error.kind == .forbidden)
            }
            #expect(receiver.place().names.isEmpty)
            let moved = try await receiver.connect(wishes: LayoutWishes(dataPool: "slow"))
            #expect(try await moved.obstacles(to: source, room: .zero).isEmpty)
        }
    }

    @Test func `a folder that a link leads to can't be allowed`() throws {
        let scratch = try Scratch()
        try FileManager.default.createSymbolicLink(atPath: scratch.file("l"), withDestinationPath: "/etc")
        for folder in [scratch.file("l"), scratch.file("missing")] {
            #expect(throws: VolumeError.self) {
                try RelayServer([try Allowance("file:\(folder)")]) { _, _ throws(VolumeError) in
                    throw VolumeError(.failed, "open", on: "", reason: "")
                }
            }
        }
    }

    // MARK: On the wire

    /// Sends bytes, and gives back what comes until the other end closes.
    private static func say(_ bytes: [UInt8], to receiver: Receiver) async throws -> [UInt8] {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(unixDomainSocketPath: receiver.socket) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { incoming, outgoing in
            // It may have ended before.
            do { try await outgoing.write(ByteBuffer(bytes: bytes)) } catch is ChannelError {} catch is IOError {}
            var all: [UInt8] = []
            do { for try await part in incoming { all += Array(part.readableBytesView) } } catch is IOError {}
            return all
        }
    }

    /// The client's flags, and an offer.
    private static func offer(_ target: String) -> [UInt8] {
        let data = RelayOffer(.begin(address: target, wishes: LayoutWishes())).data
        var bytes = ByteBuffer(bytes: [0, 0, 0, 3])
        bytes.writeString("IHAVEOPT")
        bytes.writeMultipleIntegers(UInt32(0x474f_4457), UInt32(data.readableBytes))
        bytes.writeImmutableBuffer(data)
        return Array(bytes.readableBytesView)
    }

    @Test func `junk ends its own connection, and nobody else's`() async throws {
        try await withReceiver { receiver in
            let target = try await receiver.connect()
            try await target.begin(8192)
            for seed in 1...UInt64(20) {
                var random = SplitMix64(seed: seed)
                _ = try await Self.say(random.bytes(200), to: receiver)
                _ = try await Self.say(Self.offer("rbd:slow/other") + random.bytes(200), to: receiver)
            }
            try await target.write([1], at: 0)
            try await target.flush()
        }
    }

    @Test func `frames that come with the offer are taken after it`() async throws {
        try await withReceiver { receiver in
            var wire = RelayClientSession()
            var bytes = Self.offer("rbd:slow/v")
            for request in [RelayRequest.state, .kept] {
                for piece in wire.request(request).pieces { bytes += Array(piece.readableBytesView) }
            }
            // A frame of no kind, so that it ends.
            bytes += [UInt8](repeating: 0, count: 20)
            let all = try await Self.say(bytes, to: receiver)
            // The greeting; the grant's header and data, the acknowledgement; then the replies.
            #expect(all.count >= 18 + 20 + 27 + 20)
        }
    }

    @Test func `a stranger to the option is told so, and nothing is listed`() async throws {
        try await withReceiver { receiver in
            var bytes = ByteBuffer(bytes: [0, 0, 0, 3])
            for option in [UInt32(3), 99, 2] {
                bytes.writeString("IHAVEOPT")
                bytes.writeMultipleIntegers(option, UInt32(0))
            }
            let all = try await Self.say(Array(bytes.readableBytesView), to: receiver)
            var replies = ByteBuffer(bytes: all.dropFirst(18))
            var types: [UInt32] = []
            while let (_, _, type, length) = replies.readMultipleIntegers(as: (UInt64, UInt32, UInt32, UInt32).self) {
                types.append(type)
                replies.moveReaderIndex(forwardBy: Int(length))
            }
            #expect(types == [1 << 31 + 2, 1 << 31 + 1, 1] as [UInt32])
        }
    }

    @Test func `a server that is no receiver is told apart`() async throws {
        let scratch = try Scratch()
        let place = MemoryVolume.Place()
        place.make(size: .mebibytes(1))
        let disk = try await MemoryVolume(at: place).attach(.head, isWritable: true)
        let server = ExportServer([Export(name: "rbd:slow/v", disk: disk)])
        try await server.serve(at: .unix(path: scratch.file("s"))) { _ in
            let address = RelayAddress(server: .unix(path: scratch.file("s")), target: "rbd:slow/v")
            let found = await Self.result { () async throws in try await RemoteTarget.connect(to: address) }
            #expect(throws: Never.self) { try found.get() }
            #expect((try? found.get())?.address == nil)
        }
    }

    private static func result<Value>(_ body: () async throws -> Value) async -> Result<Value, any Error> {
        do { return .success(try await body()) } catch { return .failure(error) }
    }

    @Test func `whoever says nothing is dropped`() async throws {
        var limits = RelayLimits()
        limits.handshake = .milliseconds(50)
        try await withReceiver(Receiver(limits: limits)) { receiver in
            for bytes in [[], [0, 0, 0, 3]] as [[UInt8]] {
                let greeting = try await Self.say(bytes, to: receiver)
                #expect(greeting.count == 18)
            }
        }
    }

    @Test func `there are no more connections than the limit, and a session has its own`() async throws {
        var limits = RelayLimits()
        limits.connections = 3
        try await withReceiver(Receiver(limits: limits)) { receiver in
            var options = RelayOptions()
            options.connections = 8
            let target = try await receiver.connect(options: options)
            #expect(target.connectionCount == 3)
            await #expect(throws: VolumeError.self) { try await receiver.connect() }
            #expect(try await target.state() == .absent)
        }
    }

    @Test func `a token that nobody has joins nothing`() async throws {
        try await withReceiver { receiver in
            let data = RelayOffer(.join(.random())).data
            var bytes = ByteBuffer(bytes: [0, 0, 0, 3])
            for (option, data) in [(UInt32(0x474f_4457), data), (2, ByteBuffer())] {
                bytes.writeString("IHAVEOPT")
                bytes.writeMultipleIntegers(option, UInt32(data.readableBytes))
                bytes.writeImmutableBuffer(data)
            }
            let all = try await Self.say(Array(bytes.readableBytesView), to: receiver)
            let reply = ByteBuffer(bytes: all.dropFirst(18))
            let type = reply.getInteger(at: reply.readerIndex + 12, as: UInt32.self)
            #expect(type == UInt32(1 << 31 + 2))
        }
    }
}
