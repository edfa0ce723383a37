import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// What no honest server replies, and what the client says to it.
extension ClientTransmissionTests {
    struct Lie: Sendable, CustomStringConvertible {
        let description: String
        /// What the client says to it.
        let finding: String
        let style: ReplyStyle
        let command: Request.Command
        var flags: CommandFlags = []
        let reply: String

        init(
            _ description: String, _ finding: String, _ style: ReplyStyle, _ command: Request.Command, _ reply: String
        ) {
            self.init(description, finding, style, command, [], reply)
        }
        init(
            _ description: String, _ finding: String, _ style: ReplyStyle, _ command: Request.Command,
            _ flags: CommandFlags,
            _ reply: String
        ) {
            (self.description, self.finding, self.style, self.command) = (description, finding, style, command)
            (self.flags, self.reply) = (flags, reply)
        }
    }

    static let head = "668e33ef 0000"
    static let last = "668e33ef 0001"
    static let one = "0000000000000001"
    static let none = "668e33ef 0001 0000 0000000000000001 00000000"
    static let lies: [Lie] = [
        Lie(
            "junk", "a message begins with 0x67446699, which has no place there", .simple, .flush,
            "67446699 00000000 \(one)"),
        Lie(
            "an unknown cookie", "a reply to 0x2, which nobody waits for", .simple, .flush,
            "67446698 00000000 0000000000000002"),
        Lie(
            "a reply again", "a reply to 0x1, which nobody waits for", .simple, .flush,
            "67446698 00000000 \(one) 67446698 00000000 \(one)"),
        Lie(
            "a structured reply that was not agreed on", "a message begins with 0x668e33ef, which has no place there",
            .simple, .flush, none),
        Lie(
            "an extended reply that was not agreed on", "a message begins with 0x6e8a278c, which has no place there",
            .structured, .flush, "6e8a278c 00*28"),
        Lie(
            "a simple reply with extended headers", "a message begins with 0x67446698, which has no place there",
            .extended, .flush, "67446698 00000000 \(one)"),
        Lie(
            "a structured reply with extended headers", "a message begins with 0x668e33ef, which has no place there",
            .extended, .flush, none),
        Lie(
            "a simple reply to a structured read", "a simple reply to a read, when structured ones were agreed on",
            .structured, read, "67446698 00000000 \(one)"),
        Lie(
            "a simple error of a structured read", "a simple reply to a read, when structured ones were agreed on",
            .structured, read, "67446698 00000005 \(one)"),
        Lie(
            "a simple reply to a block status", "a simple reply to a block status", .structured, status,
            "67446698 00000000 \(one)"),
        Lie(
            "another offset than the request's", "a reply at 4097 to a request at 4096", .extended, read,
            "6e8a278c 0001 0000 \(one) 0000000000001001 00*8"),
        Lie("nothing of a read", "a read that ends without all of its bytes", .structured, read, none),
        Lie(
            "all but a byte", "a read that ends without all of its bytes", .structured, read,
            "\(last) 0002 \(one) 0000000c 0000000000001000 00000fff"),
        Lie(
            "a hole twice", "2 bytes at 8190, which were told before", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000001000 00000fff"
                + " \(head) 0002 \(one) 0000000c 0000000000001ffe 00000002"),
        Lie(
            "a hole of no bytes", "0 bytes at 4096, which were not asked for", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000001000 00000000"),
        Lie(
            "a hole before the request", "1 bytes at 4095, which were not asked for", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000000fff 00000001"),
        Lie(
            "a hole beyond the request", "2 bytes at 8191, which were not asked for", .structured, read,
            "\(head) 0002 \(one) 0000000c 0000000000001fff 00000002"),
        Lie(
            "a hole where the sum overflows", "4294967295 bytes at 18446744073709551615, which were not asked for",
            .structured, read, "\(head) 0002 \(one) 0000000c ffffffffffffffff ffffffff"),
        Lie("a hole of 11 bytes", "a chunk of type 2 of 11 bytes", .structured, read, "\(head) 0002 \(one) 0000000b"),
        Lie(
            "data before the request", "1 bytes at 4095, which were not asked for", .structured, read,
            "\(head) 0001 \(one) 00000009 0000000000000fff"),
        Lie("data of no bytes", "a chunk of type 1 of 8 bytes", .structured, read, "\(head) 0001 \(one) 00000008"),
        Lie(
            "data beyond the request", "16 bytes at 8177, which were not asked for", .structured, read,
            "\(head) 0001 \(one) 00000018 0000000000001ff1"),
        Lie(
            "more data than was asked for", "a chunk of type 1 of 4105 bytes, when at most 4104 are taken", .structured,
            read, "\(head) 0001 \(one) 00001009"),
        Lie(
            "4 GiB", "a chunk of type 1 of 4294967295 bytes, when at most 4104 are taken", .structured, read,
            "\(head) 0001 \(one) ffffffff"),
        Lie(
            "16 EiB", "a chunk of type 1 of 18446744073709551615 bytes, when at most 4104 are taken", .extended, read,
            "6e8a278c 0000 0001 \(one) 0000000000001000 ffffffffffffffff"),
        Lie(
            "data of a write", "a chunk of type 1 in reply to write", .structured, .write(extent(0, 512)),
            "\(head) 0001 \(one) 00000009"),
        Lie(
            "two chunks in spite of DF", "a second content chunk, in spite of NBD_CMD_FLAG_DF", .structured, read, .df,
            "\(head) 0002 \(one) 0000000c 0000000000001000 00000800"
                + " \(last) 0002 \(one) 0000000c 0000000000001800 00000800"),
        Lie(
            "NONE that isn't the last", "an NBD_REPLY_TYPE_NONE without NBD_REPLY_FLAG_DONE", .structured, .flush,
            "\(head) 0000 \(one) 00000000"),
        Lie(
            "NONE with something", "a chunk of type 0 of 1 bytes, when at most 0 are taken", .structured, .flush,
            "\(last) 0000 \(one) 00000001"),
        Lie(
            "an unknown chunk", "a chunk of type 3 in reply to flush", .structured, .flush,
            "\(last) 0003 \(one) 00000000"),
        Lie(
            "an error that is none", "an error chunk without an error, or with a message that doesn't fit", .structured,
            .flush, "\(last) 8001 \(one) 00000006 00000000 0000"),
        Lie(
            "an error too short", "a chunk of type 32769 of 5 bytes", .structured, .flush,
            "\(last) 8001 \(one) 00000005"),
        Lie(
            "an error's message beyond its chunk",
            "an error chunk without an error, or with a message that doesn't fit", .structured, .flush,
            "\(last) 8001 \(one) 00000007 00000005 0002 61"),
        Lie(
            "an error too long", "a chunk of type 32769 of 8192 bytes, when at most 4110 are taken", .structured,
            .flush, "\(last) 8001 \(one) 00002000"),
        Lie(
            "an error outside the request", "an error outside of its request", .structured, read,
            "\(last) 8002 \(one) 0000000e 00000005 0000 0000000000002000"),
        Lie(
            "a place in a flush", "an error outside of its request", .structured, .flush,
            "\(last) 8002 \(one) 0000000e 00000005 0000 0000000000000000"),
        Lie(
            "a status of an unknown context", "a status of context 3, which was not asked for, or again", .structured,
            status, "\(head) 0005 \(one) 0000000c 00000003"),
        Lie(
            "a context twice", "a status of context 1, which was not asked for, or again", .structured, status,
            "\(head) 0005 \(one) 0000000c 00000001 00001000 00000000"
                + " \(head) 0005 \(one) 0000000c 00000001"),
        Lie(
            "a context missing", "a block status that ends without all of its contexts", .structured, status,
            "\(last) 0005 \(one) 0000000c 00000001 00001000 00000000"),
        Lie(
            "a status of no bytes", "the status of no bytes", .structured, status,
            "\(head) 0005 \(one) 0000000c 00000001 00000000 00000000"),
        Lie(
            "a status without descriptors", "a chunk of type 5 of 4 bytes", .structured, status,
            "\(head) 0005 \(one) 00000004"),
        Lie("half a descriptor", "a block status of 16 bytes", .structured, status, "\(head) 0005 \(one) 00000010"),
        Lie(
            "a descriptor too many", "the status of more bytes than were asked about", .structured, status,
            "\(head) 0005 \(one) 00000014 00000001 00010000 00000000 00000001 00000000"),
        Lie(
            "two descriptors in spite of REQ_ONE", "a chunk of type 5 of 20 bytes, when at most 12 are taken",
            .structured, status, .reqOne, "\(head) 0005 \(one) 00000014"),
        Lie(
            "more than was asked about, in spite of REQ_ONE", "the status of more bytes than were asked about",
            .structured, status, .reqOne,
            "\(head) 0005 \(one) 0000000c 00000001 00010001 00000000"),
        Lie(
            "more descriptors than there may be", "a chunk of type 5 of 8388620 bytes, when at most 8388612 are taken",
            .structured, status, "\(head) 0005 \(one) 0080000c"),
        Lie(
            "compact descriptors in extended headers", "a chunk of type 5 in reply to blockStatus", .extended, status,
            "6e8a278c 0000 0005 \(one) 0000000000000000 000000000000000c"),
        Lie(
            "a count that isn't theirs", "a block status of 1 descriptors that says 2", .extended, status,
            "6e8a278c 0000 0006 \(one) 0000000000000000 0000000000000018 00000001 00000002"),
    ]
}
