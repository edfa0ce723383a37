package import NIOCore

/// Keeps a listening socket from being asked again and again when there are no descriptors left to let anybody in.
package final class Doorkeeper: ChannelInboundHandler {
    package typealias InboundIn = any Channel

    /// How long not to let anybody in then.
    private static let rest = TimeAmount.seconds(1)

    package init() {}

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let channel = context.channel
        channel.setOption(.autoRead, value: false).whenComplete { _ in
            channel.eventLoop.scheduleTask(in: Self.rest) {
                channel.setOption(.autoRead, value: true).whenComplete { _ in channel.read() }
            }
        }
    }
}
