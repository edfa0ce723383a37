internal import Glibc
internal import Volumes

/// Calls until no signal cuts the call short.
@discardableResult
func retrying<Number: SignedInteger>(
    _ operation: String, on path: String, _ body: () -> Number
) throws(VolumeError) -> Number {
    while true {
        let result = body()
        if result >= 0 { return result }
        let code = errno
        guard code == EINTR else { throw failure(code, operation, on: path) }
    }
}

func failure(_ code: Int32, _ operation: String, on path: String) -> VolumeError {
    let kind: VolumeError.Kind =
        switch code {
        case ENOENT, ENOTDIR: .missing
        case EACCES, EPERM, EROFS: .forbidden
        case ENOSPC, EDQUOT, ENOMEM: .full
        case EAGAIN, EBUSY: .busy
        case ELOOP: .unsupported
        case EIO: .damaged
        default: .failed
        }
    // glibc's strerror is safe to call from any thread since 2.32: the text is the thread's own.
    return VolumeError(kind, operation, on: path, reason: unsafe String(cString: strerror(code)))
}

/// This host's clock, since 1970; it tells the nanosecond.
func wallClock() -> Duration {
    var now = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &now)
    return .seconds(now.tv_sec) + .nanoseconds(now.tv_nsec)
}

/// Names the time from one start of the kernel to the next (proc(5), /proc/sys/kernel/random/boot_id).
/// - Returns: Nothing where it can't be told.
func presentBoot() -> String? {
    guard let file = unsafe fopen("/proc/sys/kernel/random/boot_id", "re") else { return nil }
    defer { unsafe fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 64)
    let got = unsafe fread(&bytes, 1, bytes.count, file)
    let text = String(decoding: bytes.prefix(got).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    return text.isEmpty ? nil : text
}
