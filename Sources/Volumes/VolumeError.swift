/// What went wrong with a volume, in the terms of whoever has to act on it.
package struct VolumeError: Error, Sendable, Equatable {
    /// Closed, so that a caller can switch over it.
    package enum Kind: Sendable, Equatable {
        /// There is no such image, file, snapshot or object.
        case missing
        /// Something of that name stands there already.
        case exists
        /// The cluster or host doesn't answer.
        case unreachable
        /// The caller's credentials don't allow it.
        case forbidden
        /// No room: pool, quota or disk.
        case full
        /// Somebody else holds it, or took it over.
        case busy
        /// It can't be done with this kind of volume.
        case unsupported
        /// The bytes can't be had, or are not what they must be.
        case damaged
        /// Anything else; trying again may help.
        case failed
    }

    package let kind: Kind
    /// The call that failed, as its documentation names it: "rbd_open".
    package let operation: String
    /// What it was done to: "rbd:fast/v@monday", "object rbd_data.1a2b.0000000000000007".
    package let object: String
    /// What the system said, in words: "No such file or directory".
    package let reason: String
    /// What the operator can do about it.
    package let advice: String?

    package init(_ kind: Kind, _ operation: String, on object: String, reason: String, advice: String? = nil) {
        self.kind = kind
        self.operation = operation
        self.object = object
        self.reason = reason
        self.advice = advice
    }
}

extension VolumeError: CustomStringConvertible {
    package var description: String {
        "\(object): \(operation): \(reason)" + (advice.map { "\n  \($0)" } ?? "")
    }
}
