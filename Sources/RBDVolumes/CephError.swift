internal import CCeph
internal import Glibc
internal import SystemPackage
internal import Volumes

/// What librados and librbd return: a negative errno where something went wrong.
extension VolumeError {
    /// - Parameter code: A negative errno.
    /// - Parameter advice: What to do about it, where it is more than the errno tells by itself.
    init(ceph code: Int32, _ operation: String, on object: String, advice: String? = nil) {
        self.init(
            Self.kind(of: -code), operation, on: object, reason: Self.words(for: -code),
            advice: advice ?? Self.advice(for: -code))
    }

    private static func kind(of code: Int32) -> Kind {
        switch code {
        case ENOENT, ENODEV, ENXIO: .missing
        case EEXIST: .exists
        case EPERM, EACCES, EKEYREJECTED, EKEYEXPIRED: .forbidden
        case ENOSPC, EDQUOT: .full
        case EBUSY, EROFS, ESHUTDOWN: .busy
        case ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ECONNREFUSED, ENOTCONN, ECONNRESET: .unreachable
        case EOPNOTSUPP, ENOSYS: .unsupported
        case EIO, EILSEQ, EBADMSG: .damaged
        default: .failed
        }
    }

    private static func words(for code: Int32) -> String {
        // Not errnos of the system, or ones whose usual words mislead here.
        switch code {
        case ESHUTDOWN: return "this client was blocklisted (ESHUTDOWN)"
        case EDQUOT: return "the pool's quota is reached (EDQUOT)"
        case EROFS: return "the exclusive lock is held elsewhere, or the image is read-only (EROFS)"
        default: break
        }
        return String(describing: Errno(rawValue: code))
    }

    private static func advice(for code: Int32) -> String? {
        switch code {
        case ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ECONNREFUSED:
            "Look at 'ceph -s' with the same configuration: are the monitors and OSDs up, and reachable from here?"
        case EPERM, EACCES:
            "The user needs the caps 'mon \"profile rbd\"' and 'osd \"profile rbd pool=…\"' (Docs/Operations.md)."
        case ENOSPC, EDQUOT: "Make room in the pool, or raise its quota; then give the same command again."
        default: nil
        }
    }
}

/// Throws unless `code` says that all went well.
func check(_ code: Int32, _ operation: String, on object: @autoclosure () -> String) throws(VolumeError) {
    guard code >= 0 else { throw VolumeError(ceph: code, operation, on: object()) }
}
