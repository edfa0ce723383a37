import Foundation
import NIOCore
import NIOPosix

@testable import Guest

/// A QMP server that says what a test has it say.
final class FakeQMP: Sendable {
    let path: String
    private let channel: any Channel

    static let greeting =
        #"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#

    /// One connection's part: what it says at once, and to each request.
    struct Script: Sendable {
        var atOnce: String? = FakeQMP.greeting
        /// Lines to say; nothing closes the connection. Each `ID` in them becomes the request's.
        var answer: @Sendable (_ command: String, _ arguments: JSONValue?) -> [String]? = { _, _ in
            [#"{"return": {}, "id": ID}"#]
        }
    }

    init(_ script: Script = Script()) async throws {
        let path = NSTemporaryDirectory() + "godwit-qmp-\(UInt64.random(in: 0...(.max)))"
        self.path = path
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(script))
                }
            }
            .bind(unixDomainSocketPath: path).get()
    }

    func close() async throws {
        try await channel.close()
        try? FileManager.default.removeItem(atPath: path)
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let script: Script
        private var text = ByteBuffer()

        init(_ script: Script) { self.script = script }

        func channelActive(context: ChannelHandlerContext) {
            if let line = script.atOnce { say(line + "\r\n", context) }
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var bytes = unwrapInboundIn(data)
            text.writeBuffer(&bytes)
            while let end = text.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
                let line = text.readBytes(length: end + 1 - text.readerIndex) ?? []
                guard let request = try? JSONValue(parsing: Data(line)), let command = request["execute"]?.text,
                    let id = request["id"]?.integer
                else { return context.close(promise: nil) }
                guard let lines = script.answer(command, request["arguments"]) else {
                    return context.close(promise: nil)
                }
                for line in lines { say(line.replacing("ID", with: "\(id)") + "\r\n", context) }
            }
        }

        private func say(_ text: String, _ context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
        }
    }
}

/// Runs a body against a server, and closes it whatever comes.
func with<Result>(_ script: FakeQMP.Script, _ body: (FakeQMP) async throws -> Result) async throws -> Result {
    let server = try await FakeQMP(script)
    do {
        let result = try await body(server)
        try await server.close()
        return result
    } catch {
        try await server.close()
        throw error
    }
}
