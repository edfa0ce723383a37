internal import CCeph
internal import Synchronization
package import Volumes

// Who may write to an unfinished target: one process, which proves that the one before it can't any more.
extension RBDTarget {
    /// How long a client that went away keeps its watch (`osd_client_watch_timeout`, 30 s), and a little.
    static let watchLimit = Duration.seconds(35)
    /// The name of Godwit's advisory locks.
    static let cookie = "godwit"

    @discardableResult
    package func own() async throws(VolumeError) -> Bool {
        guard owned.withLock({ $0 == nil }) else { return false }
        let made = made.withLock { $0.take() }
        var hasFenced = false
        if made == nil {
            try await refuseForeign("own")
            if case .committed = try await state() { return try await fencePredecessor(at: name) }
            hasFenced = try await fencePredecessor(at: unfinishedName)
            // Who comes after a run that is killed as it opens the image has to know whom to evict.
            guard let id = try await pool.id(ofNamed: unfinishedName) else {
                throw VolumeError(.missing, "own", on: address, reason: "another run has removed it")
            }
            try await note([(Marking.holder, Holder.own(client: cluster.clientAddresses).text)], in: id)
        }
        let image = if let made { made } else { try await openUnfinished() }
        do throws(VolumeError) {
            try await lock(image)
            try await refuseRival(at: image)
        } catch {
            await image.close()
            throw error
        }
        owned.withLock { $0 = image }
        return hasFenced
    }

    /// For writing.
    func openUnfinished() async throws(VolumeError) -> Image {
        try await Image.open(unfinishedName, in: pool, title: address, for: .writing)
    }

    /// Two that begin at the same moment both say that it is theirs: it is that one's who said so last.
    private func refuseRival(at image: Image) async throws(VolumeError) {
        guard try await isHeldByUs(image) else {
            throw VolumeError(
                .busy, "own", on: address, reason: "another run has begun it as well",
                advice: "Wait for that to end; then give the command again.")
        }
    }

    private func isHeldByUs(_ image: Image) async throws(VolumeError) -> Bool {
        try await image.metadata(Marking.holder).flatMap(Holder.init(text:)) == .own(client: cluster.clientAddresses)
    }

    /// Makes sure that the process which was at the target before can't write to it any more.
    /// - Returns: Whether there was one.
    private func fencePredecessor(at name: String) async throws(VolumeError) -> Bool {
        guard let id = try await pool.id(ofNamed: name),
            let holder = try await notes(in: id)?[Marking.holder].flatMap(Holder.init(text:)),
            holder.client != cluster.clientAddresses
        else { return false }
        func inUse() -> VolumeError {
            VolumeError(
                .busy, "own", on: address,
                reason: "process \(holder.process) on \(holder.host) is moving into it",
                advice: "Wait for it to end, or end it; then give the command again.")
        }
        switch holder.life {
        case .alive: throw inUse()
        case .dead: break
        case .unknown:
            // On another host: it lives as long as it watches the image.
            let deadline = ContinuousClock.now + Self.watchLimit
            while try await pool.watchers(ofImage: name).contains(where: { holder.has($0.address) }) {
                guard ContinuousClock.now < deadline else { throw inUse() }
                notice("waiting for process \(holder.process) on \(holder.host), which may be gone, to be given up")
                try await pause()
            }
        }
        try await cluster.evict(holder.client)
        return true
    }

    /// Waits a second, but not through a stop.
    func pause() async throws(VolumeError) {
        for _ in 0..<10 {
            guard !isStopped() else {
                throw VolumeError(.busy, "wait", on: address, reason: "stopped while waiting", advice: nil)
            }
            try? await Task.sleep(for: .milliseconds(100))
        }
    }

    /// Librbd's exclusive lock where the image has one, its advisory lock otherwise.
    private func lock(_ image: Image) async throws(VolumeError) {
        if try await image.features().contains(.exclusiveLock) {
            // librbd takes the lock by itself for some calls, and may have done so for this very image.
            if try await !image.isLockedByUs(), let owner = try await image.lockOwner() {
                unsafe try await image.call("rbd_lock_break") {
                    unsafe rbd_lock_break($0, RBD_LOCK_MODE_EXCLUSIVE, owner)
                }
            }
            unsafe try await image.call("rbd_lock_acquire") { unsafe rbd_lock_acquire($0, RBD_LOCK_MODE_EXCLUSIVE) }
        } else {
            try await image.breakAdvisoryLocks()
            unsafe try await image.call("rbd_lock_exclusive") { unsafe rbd_lock_exclusive($0, RBDTarget.cookie) }
        }
    }

    /// Without complaint if it isn't locked any more.
    func unlock(_ image: Image) async throws(VolumeError) {
        if try await image.features().contains(.exclusiveLock) {
            guard try await image.isLockedByUs() else { return }
            unsafe try await image.call("rbd_lock_release") { unsafe rbd_lock_release($0) }
        } else {
            do throws(VolumeError) {
                unsafe try await image.call("rbd_unlock") { unsafe rbd_unlock($0, RBDTarget.cookie) }
            } catch let error where error.kind == .missing {
            }
        }
    }

    /// Closes the image and opens it anew: what librbd knew of it is forgotten.
    func reopen() async throws(VolumeError) {
        let image = try image()
        owned.withLock { $0 = nil }
        // An advisory lock outlives the handle, and would be taken for a dead run's.
        try await unlock(image)
        await image.close()
        try await own()
    }

    package func close() async {
        if let image = owned.withLock({ $0 }) ?? made.withLock({ $0 }), (try? await isHeldByUs(image)) == true {
            try? await image.unmark(Marking.holder)
        }
        await letGo()
    }

    /// Closes the image, and goes on being its holder.
    func letGo() async {
        guard let image = owned.withLock({ $0.take() }) ?? made.withLock({ $0.take() }) else { return }
        try? await unlock(image)
        await image.close()
    }
}

extension Image {
    fileprivate func isLockedByUs() async throws(VolumeError) -> Bool {
        let isOwner: Int32 = unsafe try await number("rbd_is_exclusive_lock_owner") {
            unsafe rbd_is_exclusive_lock_owner($0, $1)
        }
        return isOwner != 0
    }

    /// Who holds the exclusive lock.
    fileprivate func lockOwner() async throws(VolumeError) -> String? {
        try await blocking { () throws(VolumeError) in
            var mode = RBD_LOCK_MODE_EXCLUSIVE
            var owners = unsafe [UnsafeMutablePointer<CChar>?](repeating: nil, count: 8)
            var count = unsafe owners.count
            let code = unsafe rbd_lock_get_owners(self.handle, &mode, &owners, &count)
            if code == -2 { return nil }
            guard code >= 0 else { throw VolumeError(ceph: code, "rbd_lock_get_owners", on: self.title) }
            defer { unsafe rbd_lock_get_owners_cleanup(&owners, count) }
            return unsafe owners.prefix(count).first.flatMap { unsafe $0 }.map { unsafe String(cString: $0) }
        }
    }

    /// Breaks what a dead run left: nobody else locks an unfinished target, or by this name.
    func breakAdvisoryLocks() async throws(VolumeError) {
        try await breakLocks { $0.cookie == RBDTarget.cookie }
    }

    /// Takes the locks away that a client left which was evicted: whoever needs one would have to, before anything else.
    func breakLocks(of client: String) async throws(VolumeError) {
        let addresses = plainAddresses(of: client)
        try await breakLocks { addresses.contains($0.address) }
    }

    private func breakLocks(_ isLeft: (Locker) -> Bool) async throws(VolumeError) {
        for locker in try await lockers() where isLeft(locker) {
            unsafe try await call("rbd_break_lock") { unsafe rbd_break_lock($0, locker.client, locker.cookie) }
        }
    }

    private struct Locker {
        /// "client.4127".
        let client: String
        let cookie: String
        /// "127.0.0.1:0/3141".
        let address: String
    }

    /// Who holds librbd's exclusive lock, or its advisory ones: they are one and the same to an OSD.
    private func lockers() async throws(VolumeError) -> [Locker] {
        try await blocking { () throws(VolumeError) in
            var exclusive: Int32 = 0
            var (tagSize, clientsSize, cookiesSize, addressesSize) = (4096, 4096, 4096, 4096)
            var tag = [CChar](repeating: 0, count: tagSize)
            var clients = [CChar](repeating: 0, count: clientsSize)
            var cookies = [CChar](repeating: 0, count: cookiesSize)
            var addresses = [CChar](repeating: 0, count: addressesSize)
            let count = unsafe rbd_list_lockers(
                self.handle, &exclusive, &tag, &tagSize, &clients, &clientsSize, &cookies, &cookiesSize, &addresses,
                &addressesSize)
            guard count >= 0 else { throw VolumeError(ceph: Int32(count), "rbd_list_lockers", on: self.title) }
            guard count > 0 else { return [] }
            let found = zip(Image.strings(clients[..<clientsSize]), Image.strings(cookies[..<cookiesSize]))
            return zip(found, Image.strings(addresses[..<addressesSize])).prefix(Int(count)).map {
                Locker(client: $0.0, cookie: $0.1, address: $1)
            }
        }
    }
}
