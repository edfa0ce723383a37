package import NIOCore
package import Volumes

/// What a session's connections share and nobody else knows: 16 random bytes.
package struct RelayToken: Sendable, Hashable {
    package let bytes: [UInt8]

    /// Nothing if they aren't 16.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == RelayBounds.token else { return nil }
        self.bytes = bytes
    }

    package static func random() -> RelayToken {
        var system = SystemRandomNumberGenerator()
        return RelayToken((0..<RelayBounds.token).map { _ in .random(in: .min ... .max, using: &system) })!
    }
}

/// What an end is able to beyond what the version says.
package struct RelayFeatures: OptionSet, Sendable, Hashable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Payloads may be LZ4 blocks.
    package static let lz4 = Self(rawValue: 1 << 0)
    /// Ranges can be hashed at the far side.
    package static let digests = Self(rawValue: 1 << 1)
    package static let all: Self = [.lz4, .digests]
}

/// The data of the relay option: what the near side wants (Docs/Protocol.md, "The option").
package struct RelayOffer: Sendable, Equatable {
    package enum Purpose: Sendable, Equatable {
        /// A session with the target of that address, as the far side names it.
        case begin(address: String, wishes: LayoutWishes)
        /// One more connection of a session.
        case join(RelayToken)
    }

    package var version = RelayBounds.version
    package var features: RelayFeatures
    package var purpose: Purpose

    package init(features: RelayFeatures = .all, _ purpose: Purpose) {
        (self.features, self.purpose) = (features, purpose)
    }

    package enum Flaw: Error, Equatable {
        case malformed
        /// Of another version; nothing more is known of it.
        case version(UInt16)
    }

    package init(from data: inout ByteBuffer) throws(Flaw) {
        guard let version = data.readInteger(as: UInt16.self) else { throw .malformed }
        guard version == RelayBounds.version else { throw .version(version) }
        guard let features = data.readInteger(as: UInt32.self), let purpose = data.readInteger(as: UInt8.self) else {
            throw .malformed
        }
        switch purpose {
        case 0:
            guard let address = data.readText(), let wishes = data.readWishes() else { throw .malformed }
            self.purpose = .begin(address: address, wishes: wishes)
        case 1:
            guard let token = data.readBytes(length: RelayBounds.token).flatMap(RelayToken.init) else {
                throw .malformed
            }
            self.purpose = .join(token)
        default: throw .malformed
        }
        guard data.readableBytes == 0 else { throw .malformed }
        self.features = RelayFeatures(rawValue: features)
    }

    package var data: ByteBuffer {
        var data = ByteBuffer()
        data.writeMultipleIntegers(version, features.rawValue)
        switch purpose {
        case .begin(let address, let wishes):
            data.writeInteger(UInt8(0))
            data.writeText(address)
            data.writeWishes(wishes)
        case .join(let token):
            data.writeInteger(UInt8(1))
            data.writeBytes(token.bytes)
        }
        return data
    }
}

/// What the far side answers.
package struct RelayGrant: Sendable, Equatable {
    package var version = RelayBounds.version
    /// Those that both have.
    package var features: RelayFeatures
    /// Whether the target can hold metadata.
    package var holdsMetadata: Bool
    /// Connections that the session may have.
    package var connections: UInt16
    /// Requests that may be under way on one connection.
    package var requests: UInt16
    package var token: RelayToken

    package init(
        features: RelayFeatures, holdsMetadata: Bool, connections: UInt16, requests: UInt16, token: RelayToken
    ) {
        (self.features, self.holdsMetadata, self.connections) = (features, holdsMetadata, connections)
        (self.requests, self.token) = (requests, token)
    }

    /// Nothing if it has no shape, or is of another version. What follows the token is a later version's.
    package init?(from data: inout ByteBuffer) {
        guard let (version, features) = data.readMultipleIntegers(as: (UInt16, UInt32).self),
            version == RelayBounds.version, let holdsMetadata = data.readFlag(),
            let (connections, requests) = data.readMultipleIntegers(as: (UInt16, UInt16).self), connections > 0,
            requests > 0, let token = data.readBytes(length: RelayBounds.token).flatMap(RelayToken.init)
        else { return nil }
        self.init(
            features: RelayFeatures(rawValue: features), holdsMetadata: holdsMetadata, connections: connections,
            requests: requests, token: token)
    }

    package var data: ByteBuffer {
        var data = ByteBuffer()
        data.writeMultipleIntegers(version, features.rawValue)
        data.writeFlag(holdsMetadata)
        data.writeMultipleIntegers(connections, requests)
        data.writeBytes(token.bytes)
        return data
    }
}
