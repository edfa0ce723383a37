/// Runs `body` for every item, at most `limit` at a time, and hands the results on in no certain order.
///
/// After the first failure nothing more is begun; what was begun is waited for.
package func concurrently<Item: Sendable, Value: Sendable>(
    _ items: some Collection<Item>, limit: Int, _ body: @escaping @Sendable (Item) async throws(VolumeError) -> Value
) async throws(VolumeError) -> [Value] {
    let outcome: Result<[Value], VolumeError> = await withTaskGroup(of: Result<Value, VolumeError>.self) { group in
        var waiting = items.makeIterator()
        var values: [Value] = []
        var failure: VolumeError?
        func beginNext() {
            guard failure == nil, let item = waiting.next() else { return }
            group.addTask {
                do throws(VolumeError) {
                    return .success(try await body(item))
                } catch {
                    return .failure(error)
                }
            }
        }
        for _ in 0..<limit { beginNext() }
        for await result in group {
            switch result {
            case .success(let value): values.append(value)
            case .failure(let error): failure = failure ?? error
            }
            beginNext()
        }
        if let failure { return .failure(failure) }
        return .success(values)
    }
    return try outcome.get()
}
