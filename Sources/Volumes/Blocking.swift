internal import Dispatch

/// Where calls wait that librados, librbd and the kernel make us wait in: never on the threads that Swift's tasks
/// share, which are as few as the cores.
private let waitingRoom = DispatchQueue(label: "godwit.blocking", attributes: .concurrent)

/// Runs a call that blocks on a thread of its own.
package func blocking<Value: Sendable>(
    _ call: @escaping @Sendable () throws(VolumeError) -> Value
) async throws(VolumeError) -> Value {
    let result: Result<Value, VolumeError> = await withCheckedContinuation { continuation in
        waitingRoom.async {
            do throws(VolumeError) {
                continuation.resume(returning: .success(try call()))
            } catch {
                continuation.resume(returning: .failure(error))
            }
        }
    }
    return try result.get()
}
