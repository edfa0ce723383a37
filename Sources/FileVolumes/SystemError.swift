internal import Glibc
internal import Volumes

extension VolumeError {
    /// What a system call that returned -1 said.
    ///
    /// - Parameter code: `errno`, read before anything else could change it.
    init(errno code: Int32, _ operation: String, on object: String, advice: String? = nil) {
        // glibc's strerror is safe to call from any thread since 2.32: the text is the thread's own.
        let reason = unsafe String(cString: strerror(code))
        self.init(Kind(errno: code), operation, on: object, reason: reason, advice: advice ?? Self.advice(for: code))
    }

    private static func advice(for code: Int32) -> String? {
        switch code {
        case ENOSPC: "Make room on the file system, then give the command again: it goes on from here."
        case EDQUOT: "Raise the quota, then give the command again: it goes on from here."
        case EFBIG: "The file system or 'ulimit -f' doesn't allow a file of this size: choose another place."
        case EROFS: "The file system is mounted read-only: choose another place."
        case EIO: "The kernel's log says more ('dmesg')."
        default: nil
        }
    }
}

extension VolumeError.Kind {
    init(errno code: Int32) {
        self =
            switch code {
            case ENOENT, ENOTDIR, ENXIO, ENODEV: .missing
            case EEXIST: .exists
            case EACCES, EPERM, EROFS: .forbidden
            case ENOSPC, EDQUOT: .full
            case EAGAIN, EBUSY, ETXTBSY: .busy
            case EOPNOTSUPP, ENOSYS, EFBIG, ENAMETOOLONG, EISDIR, ELOOP: .unsupported
            case EIO, EUCLEAN, EBADMSG: .damaged
            case ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH, ESTALE: .unreachable
            default: .failed
            }
    }
}

/// - Throws: `exists` if something has that name.
func renameWithoutReplacing(_ old: String, to new: String, title: String) throws(VolumeError) {
    do throws(VolumeError) {
        try retrying("renameat2", on: title) {
            unsafe renameat2(AT_FDCWD, old, AT_FDCWD, new, UInt32(RENAME_NOREPLACE))
        }
    } catch let error where error.kind == .unsupported || error.kind == .failed {
        // EINVAL, or ENOSYS: the file system can't rename without replacing (NFS). A link never replaces.
        try retrying("link", on: title) { unsafe link(old, new) }
        try retrying("unlink", on: title) { unsafe unlink(old) }
    }
}
