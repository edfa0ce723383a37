internal import CCeph
internal import Volumes

/// A method of the object class "rbd" (src/cls/rbd/cls_rbd.cc), and what it takes.
struct ClassCall: Sendable {
    let method: String
    let input: [UInt8]

    init(_ method: String, _ input: [UInt8] = []) {
        self.method = method
        self.input = input
    }
}

extension ClassCall {
    static func setMetadata(_ pairs: [(key: String, value: [UInt8])]) -> ClassCall {
        let encoded = pairs.map { pair in
            CephEncoder.string(pair.key) + CephEncoder.integer(UInt32(pair.value.count)) + pair.value
        }
        return ClassCall("metadata_set", CephEncoder.integer(UInt32(pairs.count)) + encoded.joined())
    }
    static func removeMetadata(_ key: String) -> ClassCall {
        ClassCall("metadata_remove", CephEncoder.string(key))
    }
}

/// What a method answered, or a negative errno.
struct ClassAnswer: Sendable {
    let code: Int32
    let bytes: [UInt8]

    /// Reads the answer.
    func decoded<Value>(
        of object: String, in pool: Pool, _ body: (inout CephDecoder) throws(CephDecoder.Malformed) -> Value
    ) throws(VolumeError) -> Value {
        try check(code, "exec", on: "object \(object) of pool \(pool.path)")
        var decoder = CephDecoder(bytes)
        do throws(CephDecoder.Malformed) {
            return try body(&decoder)
        } catch {
            throw VolumeError(
                .damaged, "exec", on: "object \(object) of pool \(pool.path)", reason: "an answer of another form")
        }
    }
}

extension Pool {
    /// Calls methods on one object, in one operation.
    /// - Returns: As many answers; nothing if there is no such object.
    func call(_ calls: [ClassCall], on object: String) async throws(VolumeError) -> [ClassAnswer]? {
        guard let batch = unsafe cceph_calls_new() else {
            throw VolumeError(ceph: -12, "exec", on: "object \(object)")
        }
        defer { unsafe cceph_calls_free(batch) }
        for call in calls {
            unsafe try check(
                cceph_calls_add(batch, call.method, call.input, call.input.count), "exec", on: "object \(object)")
        }
        let code = unsafe await completed { done, context in
            unsafe cceph_calls_submit(handle, object, batch, done, context)
        }
        if code == -2 { return nil }
        try check(code, "exec", on: "object \(object) of pool \(path)")
        return calls.indices.map { number in
            var (start, count): (UnsafePointer<UInt8>?, Int) = (nil, 0)
            let code = unsafe cceph_calls_answer(batch, number, &start, &count)
            return unsafe ClassAnswer(code: code, bytes: Array(UnsafeBufferPointer(start: start, count: count)))
        }
    }
}

extension Pool {
    /// Has methods change an object, all or none.
    func change(_ object: String, _ calls: ClassCall...) async throws(VolumeError) {
        try await blocking { () throws(VolumeError) in
            let operation = unsafe rados_create_write_op()
            defer { unsafe rados_release_write_op(operation) }
            // What was removed meanwhile isn't made anew.
            unsafe rados_write_op_assert_exists(operation)
            for call in calls {
                unsafe call.input.withUnsafeBytes { buffer in
                    unsafe rados_write_op_exec(
                        operation, "rbd", call.method, buffer.baseAddress?.assumingMemoryBound(to: CChar.self),
                        buffer.count, nil)
                }
            }
            unsafe try check(
                rados_write_op_operate(operation, self.handle, object, nil, 0), calls.last?.method ?? "exec",
                on: "object \(object) of pool \(self.path)")
        }
    }
}
