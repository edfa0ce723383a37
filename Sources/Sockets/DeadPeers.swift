internal import Glibc
package import NIOCore

extension Channel {
    /// Has the kernel find out, within half a minute, that the other host is gone without a word (tcp(7), socket(7)).
    /// Nothing for a Unix socket, whose other end can't be. On the channel's event loop.
    package func noticeDeadPeers() {
        guard let remoteAddress, remoteAddress.protocol != .unix, let options = syncOptions else { return }
        try? options.setOption(.socketOption(.so_keepalive), value: 1)
        for (option, value) in [(TCP_KEEPIDLE, 10), (TCP_KEEPINTVL, 5), (TCP_KEEPCNT, 4)] as [(Int32, Int)] {
            try? options.setOption(.tcpOption(NIOBSDSocket.Option(rawValue: option)), value: value)
        }
    }
}
