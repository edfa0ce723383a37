import Volumes

@testable import Relay

/// Inputs that are worth trying whatever the dice say: each is the end of a session. What a run of `FuzzTests` finds is
/// added here.
enum Corpus {
    /// To the far side.
    static let far = [
        // A reply in place of a request, kinds that don't exist, bits that are reserved.
        "47575250 0001 0000 0000000000000001 00000000",
        "47575251 0000 0000 0000000000000001 00000000",
        "47575251 0019 0000 0000000000000001 00000000",
        "47575251 0001 8000 0000000000000001 00000000",
        // A body where there is none, and one of 4 GiB.
        "47575251 0001 0000 0000000000000001 00000001",
        "47575251 000c 0000 0000000000000001 ffffffff",
        // Changes: none, more than are there, a byte too many.
        "47575251 000c 0000 0000000000000001 00000004 00000000",
        "47575251 000c 0000 0000000000000001 00000004 ffffffff",
        "47575251 000c 0000 0000000000000001 00000025 00000001 0000000000000000 0000000000001000 "
            + "00000002 00000000 00000000 00000000 00",
        // At the end of all offsets, of no bytes, of another length than its payload, zeros with a payload.
        "47575251 000c 0000 0000000000000001 00000024 00000001 7fffffffffffffff 0000000000000001 "
            + "00000002 00000000 00000000 00000000",
        "47575251 000c 0000 0000000000000001 00000024 00000001 0000000000000000 0000000000000000 "
            + "00000002 00000000 00000000 00000000",
        "47575251 000c 0000 0000000000000001 00000025 00000001 0000000000000000 0000000000000002 "
            + "00000000 00000001 00000000 00000000 aa",
        "47575251 000c 0000 0000000000000001 00000025 00000001 0000000000000000 0000000000000001 "
            + "00000002 00000001 00000000 00000000 aa",
        // An LZ4 block that unpacks to 2^63 - 1 bytes.
        "47575251 000c 0000 0000000000000001 00000025 00000001 0000000000000000 7fffffffffffffff "
            + "00000001 00000001 00000000 00000000 aa",
        // Texts: longer than what is there, with a NUL, of no UTF-8.
        "47575251 0006 0000 0000000000000001 00000004 ffffffff",
        "47575251 0006 0000 0000000000000001 00000005 00000001 00",
        "47575251 0006 0000 0000000000000001 00000006 00000002 c328",
        // A read of nothing, and a digest of chunks of nothing.
        "47575251 0016 0000 0000000000000001 00000014 00000001 0000000000000000 0000000000000000",
        "47575251 0017 0000 0000000000000001 0000001c 00000001 0000000000000000 0000000000001000 0000000000000000",
    ]

    /// To a near side that asked this, as request 1.
    static let near: [(asked: RelayRequest, bytes: String)] = [
        (.flush, "47575251 0000 0000 0000000000000001 00000000"),
        (.flush, "47575250 0000 0001 0000000000000001 00000000"),
        // Nobody's, nobody's any more, and a sign of life that answers something or says more.
        (.flush, "47575250 0000 0000 0000000000000002 00000000"),
        (.flush, "47575250 0000 0000 0000000000000001 00000000 47575250 0000 0000 0000000000000001 00000000"),
        (.flush, "47575250 ffff 0000 0000000000000001 00000000"),
        (.flush, "47575250 ffff 0000 0000000000000000 00000001"),
        // A status that doesn't exist; a failure that is longer than any, and one that ends early.
        (.flush, "47575250 7777 0000 0000000000000001 00000000"),
        (.flush, "47575250 0001 0000 0000000000000001 ffffffff"),
        (.flush, "47575250 0001 0000 0000000000000001 00000004 00000001"),
        (.own, "47575250 0000 0000 0000000000000001 00000001 02"),
        (.own, "47575250 0000 0000 0000000000000001 00000002 0000"),
        // Extents that go back, and one of nothing.
        (
            .extents(reader: 1, Extent(offset: .zero, length: .kibibytes(64)), since: nil),
            "47575250 0000 0000 0000000000000001 00000024 00000002 0000000000001000 0000000000001000 "
                + "0000000000000000 0000000000001000"
        ),
        (
            .extents(reader: 1, Extent(offset: .zero, length: .kibibytes(64)), since: nil),
            "47575250 0000 0000 0000000000000001 00000014 00000001 0000000000001000 0000000000000000"
        ),
        // Bytes that are fewer than they say, and zeros, which aren't read.
        (
            .read(reader: 1, Extent(offset: .zero, length: .kibibytes(4))),
            "47575250 0000 0000 0000000000000001 0000000d 00001000 00000000 00000000 aa"
        ),
        (
            .read(reader: 1, Extent(offset: .zero, length: .kibibytes(4))),
            "47575250 0000 0000 0000000000000001 0000000c 00001000 00000002 00000000"
        ),
        // More digests than are there.
        (
            .digest(reader: 1, Extent(offset: .zero, length: .kibibytes(4)), chunk: .kibibytes(4)),
            "47575250 0000 0000 0000000000000001 00000004 ffffffff"
        ),
    ]
}
