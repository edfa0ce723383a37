internal import CCeph
internal import Volumes

/// Resumes whoever waits for an operation of `CCeph.h`. At file scope, as a closure that is written inside isolated
/// code traps when a thread of librados calls it.
private let resume: cceph_done = { context, result in
    // Unsafe: the context is the continuation itself, put there by `completed`, and resumed here alone.
    unsafe unsafeBitCast(context, to: UnsafeContinuation<Int32, Never>.self).resume(returning: result)
}

/// Submits an operation and waits for its result, without a thread.
func completed(_ submit: (cceph_done, UnsafeMutableRawPointer) -> Int32) async -> Int32 {
    // Unsafe: a checked continuation costs an allocation per operation; librados calls back exactly once for each
    // operation that it accepted, and not at all for one it refused.
    unsafe await withUnsafeContinuation { (continuation: UnsafeContinuation<Int32, Never>) in
        let refused = unsafe submit(resume, unsafeBitCast(continuation, to: UnsafeMutableRawPointer.self))
        if refused < 0 { unsafe continuation.resume(returning: refused) }
    }
}

/// The same for librbd's completions.
private let resumeImage: rbd_callback_t = { completion, context in
    let result = unsafe rbd_aio_get_return_value(completion)
    unsafe rbd_aio_release(completion)
    unsafe unsafeBitCast(context, to: UnsafeContinuation<Int, Never>.self).resume(returning: result)
}

/// Submits a librbd operation and waits for its result, without a thread.
func completedImage(_ submit: (rbd_completion_t?) -> Int32) async -> Int {
    unsafe await withUnsafeContinuation { (continuation: UnsafeContinuation<Int, Never>) in
        var completion: rbd_completion_t?
        let context = unsafe unsafeBitCast(continuation, to: UnsafeMutableRawPointer.self)
        let created = unsafe rbd_aio_create_completion(context, resumeImage, &completion)
        guard created >= 0 else { return unsafe continuation.resume(returning: Int(created)) }
        let refused = unsafe submit(completion)
        guard refused != 0 else { return }
        unsafe rbd_aio_release(completion)
        unsafe continuation.resume(returning: Int(refused))
    }
}
