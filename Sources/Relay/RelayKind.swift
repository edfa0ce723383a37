internal import Volumes

/// What a request asks for, by its number on the wire (Docs/Protocol.md, "Requests").
package enum RelayKind: UInt16, Sendable, CaseIterable {
    case state = 1
    case describe = 2
    case obstacles = 3
    case make = 4
    case own = 5
    case save = 6
    case kept = 7
    case resize = 8
    case keep = 9
    case alter = 10
    case drop = 11
    case change = 12
    case flush = 13
    case furnish = 14
    case commit = 15
    case uncommit = 16
    case forget = 17
    case discard = 18
    case letGo = 19
    case open = 20
    case extents = 21
    case read = 22
    case digest = 23
    case close = 24

    /// Bytes that the body of such a request may have.
    package var mostBody: Int {
        switch self {
        case .state, .describe, .own, .kept, .flush, .uncommit, .forget, .discard, .letGo: 0
        case .resize, .keep, .alter, .drop, .open, .extents, .read, .digest, .close: RelayBounds.small
        case .obstacles, .make, .save, .furnish, .commit: RelayBounds.control
        case .change: 4 + RelayBounds.changes * Changes.entry + RelayBounds.stored
        }
    }

    /// Bytes that the body of its reply may have, if it was carried out.
    package var mostReply: Int {
        switch self {
        case .make, .save, .resize, .alter, .drop, .change, .flush, .furnish, .commit, .uncommit, .forget, .discard,
            .letGo, .close:
            0
        case .own: 1
        case .keep, .open: RelayBounds.small
        case .digest: 4 + 8 * Int(RelayBounds.digested.bytes / RelayBounds.digestChunk.bytes)
        case .state, .describe, .obstacles, .kept, .extents: RelayBounds.control
        case .read: RelayReply.payloadHeader + RelayBounds.payload
        }
    }

    /// Whether it changes something of the target.
    package var isChange: Bool {
        switch self {
        case .make, .own, .save, .resize, .keep, .alter, .drop, .change, .flush, .furnish, .commit, .uncommit, .forget,
            .discard:
            true
        case .state, .describe, .obstacles, .kept, .letGo, .open, .extents, .read, .digest, .close: false
        }
    }
}
