internal import Glibc
internal import NIOSSL
internal import Volumes

/// A folder of certificates and keys in PEM, under the names that nbdkit(1), libnbd and QEMU (`tls-creds-x509`) have for
/// them. Each file is read once, and refused if it can't be what it should be. Its calls block.
struct CertificateFolder {
    /// Whose certificate a folder is to hold.
    enum Owner: String {
        case server
        case client

        var certificate: String { rawValue + "-cert.pem" }
        var key: String { rawValue + "-key.pem" }
    }

    /// A certificate with those that lead to its CA, and its key.
    struct Identity {
        let chain: [NIOSSLCertificate]
        let key: NIOSSLPrivateKey
    }

    static let authority = "ca-cert.pem"
    static let revocations = "ca-crl.pem"
    /// Bytes: a bundle of all public CAs has a quarter of it.
    private static let longestFile = 1 << 20

    let path: String
    /// Seconds since 1970.
    let now: Int

    init(_ path: String, now: Int = currentSeconds()) { (self.path, self.now) = (path, now) }

    func file(_ name: String) -> String { path + (path.hasSuffix("/") ? "" : "/") + name }

    /// Whether there is such a folder.
    var exists: Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Those whose word is believed; nothing if the folder names none.
    func authorities() throws(VolumeError) -> [NIOSSLCertificate]? {
        guard let found = try certificates(Self.authority) else { return nil }
        // Of several, an old one may have been left in place.
        guard found.contains(where: isInForce) else { throw notInForce(found[0], Self.authority) }
        return found
    }

    /// What its owner shows; nothing if neither the certificate nor the key is there.
    func identity(of owner: Owner) throws(VolumeError) -> Identity? {
        guard let chain = try certificates(owner.certificate) else {
            guard try bytes(owner.key, isSecret: true) == nil else { throw missing(owner.certificate) }
            return nil
        }
        for certificate in chain where !isInForce(certificate) { throw notInForce(certificate, owner.certificate) }
        guard let bytes = try bytes(owner.key, isSecret: true) else { throw missing(owner.key) }
        return Identity(chain: chain, key: try key(bytes, owner.key))
    }

    func missing(_ name: String, advice: String? = nil) -> VolumeError {
        VolumeError(
            .missing, "open", on: file(name), reason: "there is no such file",
            advice: advice ?? "Docs/Operations.md shows how to make the certificates that TLS needs.")
    }

    /// What a list of revoked certificates would say is never left out silently.
    func refuseRevocations() throws(VolumeError) {
        guard try bytes(Self.revocations, isSecret: false) != nil else { return }
        throw VolumeError(
            .unsupported, "open", on: file(Self.revocations), reason: "lists of revoked certificates aren't understood",
            advice: "Make a new CA that the revoked ones are not of, and take this file away.")
    }

    // MARK: Dates

    private func isInForce(_ certificate: NIOSSLCertificate) -> Bool {
        certificate.notValidBefore <= now && now <= certificate.notValidAfter
    }

    private func notInForce(_ certificate: NIOSSLCertificate, _ name: String) -> VolumeError {
        let isOver = certificate.notValidAfter < now
        let date = day(isOver ? certificate.notValidAfter : certificate.notValidBefore)
        return VolumeError(
            .damaged, "verify", on: file(name),
            reason: isOver ? "the certificate expired on \(date)" : "the certificate isn't valid before \(date)",
            advice: isOver ? "Make a new one." : "See whether this host's clock is right.")
    }

    // MARK: Files

    private func certificates(_ name: String) throws(VolumeError) -> [NIOSSLCertificate]? {
        guard let bytes = try bytes(name, isSecret: false) else { return nil }
        do {
            return try NIOSSLCertificate.fromPEMBytes(bytes)
        } catch {
            throw VolumeError(
                .damaged, "parse", on: file(name), reason: "it holds no certificate in PEM",
                advice: "'openssl x509 -in \(file(name)) -noout -text' says what it is.")
        }
    }

    private func key(_ bytes: [UInt8], _ name: String) throws(VolumeError) -> NIOSSLPrivateKey {
        do {
            // Without a callback BoringSSL would ask on the terminal.
            let noPhrase: NIOSSLPassphraseCallback<[UInt8]> = { $0([]) }
            return try NIOSSLPrivateKey(bytes: bytes, format: .pem, passphraseCallback: noPhrase)
        } catch {
            throw VolumeError(
                .damaged, "parse", on: file(name), reason: "it holds no private key in PEM, or one under a passphrase",
                advice: "'openssl pkey -in \(file(name)) -out NEW' writes it without one.")
        }
    }

    /// - Parameter isSecret: Whether others may not be let read it.
    /// - Returns: Nothing if there is no such file.
    private func bytes(_ name: String, isSecret: Bool) throws(VolumeError) -> [UInt8]? {
        let path = file(name)
        func failure(_ operation: String) -> VolumeError {
            VolumeError(.forbidden, operation, on: path, reason: unsafe String(cString: strerror(errno)))
        }
        // Not to be kept waiting where a pipe stands.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw failure("open")
        }
        defer { close(descriptor) }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw failure("fstat") }
        guard status.st_mode & S_IFMT == S_IFREG, status.st_size > 0, status.st_size <= Self.longestFile else {
            throw VolumeError(
                .damaged, "open", on: path, reason: "it is no file of 1 to \(Self.longestFile) bytes")
        }
        guard !isSecret || status.st_mode & 0o007 == 0 else {
            throw VolumeError(
                .forbidden, "open", on: path,
                reason: "every user of this host may read this key, or replace it (mode 0\(octal(status.st_mode)))",
                advice: "'chmod o= \(path)', and make a new key if others may have read it.")
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var count = 0
        while count < bytes.count {
            let got = unsafe bytes[count...].withUnsafeMutableBytes {
                unsafe read(descriptor, $0.baseAddress, $0.count)
            }
            if got < 0, errno == EINTR { continue }
            guard got > 0 else { throw failure("read") }
            count += got
        }
        return bytes
    }

    private func octal(_ mode: mode_t) -> String { String(mode & 0o777, radix: 8) }
}

/// Since 1970.
func currentSeconds() -> Int { time(nil) }

/// A day of UTC in the Gregorian calendar, as ISO 8601 writes it.
/// - Parameter seconds: Since 1970.
func day(_ seconds: Int) -> String {
    // Counted from 0000-03-01 on, so that a leap year's additional day is the last of its year. A year of the first
    // century that has none of them would begin as `dayOfEra / 365`; the rest takes the leap days out.
    let days = Int((Double(seconds) / 86_400).rounded(.down)) + 719_468
    let era = (days >= 0 ? days : days - 146_096) / 146_097
    let dayOfEra = days - era * 146_097
    let year = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * year + year / 4 - year / 100)
    let month = (5 * dayOfYear + 2) / 153
    func two(_ number: Int) -> String { (number < 10 ? "0" : "") + "\(number)" }
    return "\(year + era * 400 + (month >= 10 ? 1 : 0))-\(two((month + 2) % 12 + 1))-"
        + two(dayOfYear - (153 * month + 2) / 5 + 1)
}
