@testable import NBDProtocol

/// Inputs that are worth trying whatever the dice say: each is the end of a session. What a run of `FuzzTests` finds is
/// added here.
enum Corpus {
    struct Input {
        let style: ReplyStyle
        let bytes: String
    }

    /// To a server in transmission.
    static let server = [
        // The reserved magics of old kernels.
        Input(style: .simple, bytes: "12560953 00*24"),
        // A write of 32 MiB and a byte; in extended headers of 16 EiB, and of a command that has no payload.
        Input(style: .structured, bytes: "25609513 0000 0001 00*8 00*8 02000001"),
        Input(style: .extended, bytes: "21e41c71 0020 0001 00*8 00*8 ffffffffffffffff"),
        Input(style: .extended, bytes: "21e41c71 0020 0000 00*8 00*8 8000000000000000"),
        // A header in place of a payload that a shorter write announced.
        Input(style: .simple, bytes: "25609513 0000 0001 00*8 00*8 00000002 25609513 0000 00*24"),
    ]

    /// To a client that reads 4 KiB at 4 KiB, under the cookie 1.
    static let client = [
        Input(style: .structured, bytes: "96744668 00*16"),
        Input(style: .structured, bytes: "668e33ef 0000 0002 0000000000000001 0000000c 0000000000001000 ffffffff"),
        Input(style: .structured, bytes: "668e33ef 0000 0001 0000000000000001 00000009 ffffffffffffffff"),
        Input(style: .extended, bytes: "6e8a278c 0000 0001 0000000000000001 0000000000001000 8000000000000008"),
        Input(style: .extended, bytes: "6e8a278c 0001 8001 0000000000000001 0000000000001000 ffffffffffffffff"),
    ]
}
