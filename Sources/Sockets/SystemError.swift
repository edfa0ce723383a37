internal import Glibc
package import Volumes

extension VolumeError {
    /// What a system call that returned -1 said.
    ///
    /// - Parameter code: `errno`, read before anything else could change it.
    package init(errno code: Int32, _ operation: String, on object: String, advice: String? = nil) {
        // glibc's strerror is safe to call from any thread since 2.32: the text is the thread's own.
        let reason = unsafe String(cString: strerror(code))
        let kind: Kind =
            switch code {
            case ENOENT, ENOTDIR: .missing
            case EEXIST, EADDRINUSE: .exists
            case EACCES, EPERM, EROFS: .forbidden
            case ENOSPC, EDQUOT: .full
            case EAGAIN: .busy
            default: .failed
            }
        self.init(kind, operation, on: object, reason: reason, advice: advice)
    }
}
