import Conformance
import NIOCore
import Testing
import Volumes

@testable import NBDProtocol
@testable import NBDVolumes

/// What becomes of a client whose server fails, lies, is late or isn't one.
struct FaultTests {
    static let size = 1 << 16

    /// What comes of connecting, and of reading 4 KiB at 8 KiB.
    func failure(
        _ script: FakeServer.Script, patience: Patience = .standard, export: String = "disk",
        _ body: @Sendable (NBDExport) async throws(VolumeError) -> Void = { export throws(VolumeError) in
            unsafe try await withIOBuffer(of: .kibibytes(4)) { buffer throws(VolumeError) in
                try await unsafe export.read(into: buffer, at: ByteOffset(8192))
            }
        }
    ) async throws -> VolumeError? {
        try await withServer([UInt8](repeating: 7, count: Self.size), script) { server in
            do throws(VolumeError) {
                let address = NBDAddress(server: .unix(path: server.path), export: export)
                try await body(try await NBDExport.connect(to: address, patience: patience))
                return nil
            } catch {
                #expect(error.object.hasPrefix("nbd+unix:///\(export)?socket="))
                return error
            }
        }
    }

    func instead(_ act: FakeServer.Act) -> FakeServer.Script {
        var script = FakeServer.Script()
        script.act = { _ in act }
        return script
    }

    // MARK: In transmission

    @Test func `a server that dies fails what is in flight, and says what and where`() async throws {
        let error = try #require(try await failure(instead(.die)))
        #expect(error.kind == .unreachable)
        #expect(error.operation == "NBD_CMD_READ")
        #expect(error.object.hasSuffix("at byte 8192"))
        #expect(error.reason == "the server closed the connection")
        #expect(error.advice == "See whether it still runs.")
    }

    @Test func `all that is in flight fails with the connection, and whatever is asked after`() async throws {
        let silent = Patience(handshake: .seconds(30), silence: .seconds(30), another: .seconds(3))
        var script = FakeServer.Script()
        script.act = { request in if case .flush = request.command { .die } else { .keepSilent } }
        try await withServer([UInt8](repeating: 7, count: Self.size), script) { server in
            let export = try await NBDExport.connect(to: server.address, patience: silent)
            let kinds = try await withThrowingTaskGroup(of: (String, VolumeError.Kind)?.self) { group in
                for place in 0..<8 {
                    group.addTask {
                        do throws(VolumeError) {
                            unsafe try await withIOBuffer(of: .kibibytes(4)) { buffer throws(VolumeError) in
                                try await unsafe export.read(into: buffer, at: ByteOffset(UInt64(place) * 4096))
                            }
                            return nil
                        } catch {
                            return (error.object, error.kind)
                        }
                    }
                }
                // Only when all of them are there is the server made to die.
                while server.requests.count < 8 { try await Task.sleep(for: .milliseconds(1)) }
                group.addTask {
                    try? await export.flush(); return nil
                }
                var kinds: [(String, VolumeError.Kind)] = []
                for try await found in group { if let found { kinds.append(found) } }
                return kinds
            }
            #expect(kinds.map(\.1) == [VolumeError.Kind](repeating: .unreachable, count: 8))
            #expect(Set(kinds.map(\.0)).count == 8, "each says where")
            await #expect { try await export.flush() } throws: { error in
                (error as? VolumeError)?.kind == .unreachable && (error as? VolumeError)?.operation == "NBD_CMD_FLUSH"
            }
        }
    }

    @Test func `a server that is silent is given up, and one that is only late is not`() async throws {
        let patience = Patience(handshake: .seconds(30), silence: .seconds(2), another: .seconds(3))
        let clock = ContinuousClock()
        var error: VolumeError?
        let took = try await clock.measure {
            error = try await failure(instead(.keepSilent), patience: patience)
        }
        #expect(error?.kind == .unreachable)
        #expect(error?.reason == "no answer for 2 s")
        #expect(took >= .seconds(2))
        #expect(try await failure(instead(.answerLate(.milliseconds(300))), patience: patience) == nil)
    }

    @Test func `time in which nothing was owed is no silence`() async throws {
        let patience = Patience(handshake: .seconds(30), silence: .seconds(2), another: .seconds(3))
        let error = try await failure(instead(.answerLate(.milliseconds(200))), patience: patience) {
            export throws(VolumeError) in
            for _ in 0..<2 {
                unsafe try await withIOBuffer(of: .kibibytes(4)) { buffer throws(VolumeError) in
                    try await unsafe export.read(into: buffer, at: .zero)
                }
                try? await Task.sleep(for: .milliseconds(2500))
            }
        }
        #expect(error == nil)
    }

    @Test(arguments: [
        (ErrorValue.io, VolumeError.Kind.failed), (.noSpace, .full), (.notPermitted, .forbidden),
        (.invalid, .unsupported), (.shutdown, .unreachable), (.noMemory, .failed),
    ])
    func `what the server refuses is told with its words`(value: ErrorValue, kind: VolumeError.Kind) async throws {
        let error = try #require(try await failure(instead(.fail(value, "the disk\nis gone"))))
        #expect(error.kind == kind)
        #expect(error.reason.hasSuffix(": the disk is gone"))
        #expect(error.advice != nil)
    }

    @Test func `a request that failed leaves the connection as it was`() async throws {
        var script = FakeServer.Script()
        script.act = { request in
            request.extent?.offset == ByteOffset(8192) ? .fail(.io, "") : .obey
        }
        let error = try await failure(script) { export throws(VolumeError) in
            unsafe try await withIOBuffer(of: .kibibytes(4)) { buffer throws(VolumeError) in
                do throws(VolumeError) {
                    try await unsafe export.read(into: buffer, at: ByteOffset(8192))
                    Issue.record("it was to fail")
                } catch {
                    #expect(error.kind == .failed)
                }
                try await unsafe export.read(into: buffer, at: .zero)
                #expect(unsafe buffer.allSatisfy { $0 == 7 })
            }
        }
        #expect(error == nil)
    }

    /// Answers that no honest server gives.
    static let lies: [(name: String, words: @Sendable (Request, ReplyEncoder) -> ByteBuffer)] = [
        ("junk", { _, _ in ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\n\r\n") }),
        ("another's cookie", { $1.failed(cookie: $0.cookie + 1, offset: 0, .io, "") }),
        ("no bytes", { $1.header([.done], .none, $0.cookie, 8192, length: 0).bytes }),
        (
            "other bytes",
            { request, encoder in
                var bytes = encoder.header([.done], .offsetData, request.cookie, 8192, length: 8 + 4096)
                    .bytes
                bytes.writeInteger(UInt64(0))
                bytes.writeRepeatingByte(9, count: 4096)
                return bytes
            }
        ),
        (
            "more bytes",
            { request, encoder in
                encoder.header([.done], .offsetData, request.cookie, 8192, length: 8 + 4097).bytes
            }
        ),
        (
            "a hole that is larger",
            { request, encoder in
                var bytes = encoder.header([.done], .offsetHole, request.cookie, 8192, length: 12)
                    .bytes
                bytes.writeMultipleIntegers(UInt64(8192), UInt32(8192))
                return bytes
            }
        ),
    ]

    @Test(arguments: lies.indices)
    func `a lie ends the connection, and touches no byte outside of the read`(index: Int) async throws {
        let error = try await failure(instead(.say(Self.lies[index].words))) { export throws(VolumeError) in
            unsafe try await withIOBuffer(of: .kibibytes(12)) { buffer throws(VolumeError) in
                _ = unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0xA5)
                defer {
                    #expect(unsafe buffer[..<4096].allSatisfy { $0 == 0xA5 })
                    #expect(unsafe buffer[8192...].allSatisfy { $0 == 0xA5 })
                }
                let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[4096..<8192])
                try await unsafe export.read(into: part, at: ByteOffset(8192))
            }
        }
        #expect(error?.kind == .damaged, "\(Self.lies[index].name)")
        #expect(error?.reason.hasPrefix("the server broke the NBD protocol: ") == true)
    }

    @Test func `a cancelled task still gets its answers`() async throws {
        let error = try await failure(instead(.answerLate(.milliseconds(200)))) { export throws(VolumeError) in
            // Owned by this closure, which waits for it.
            let task = Task { () async -> Result<[UInt8], VolumeError> in
                do throws(VolumeError) {
                    return .success(
                        unsafe try await withIOBuffer(of: .kibibytes(4)) { buffer throws(VolumeError) in
                            try await unsafe export.read(into: buffer, at: .zero)
                            return unsafe Array(buffer)
                        })
                } catch {
                    return .failure(error)
                }
            }
            task.cancel()
            #expect(try await task.value.get() == [UInt8](repeating: 7, count: 4096))
        }
        #expect(error == nil)
    }

    // MARK: In the handshake

    func greeting(_ greeting: FakeServer.Greeting) -> FakeServer.Script {
        var script = FakeServer.Script()
        script.greeting = greeting
        return script
    }

    @Test func `who is no NBD server is told so`() async throws {
        let error = try await failure(greeting(.words(ByteBuffer(string: "220 mail.example.com ESMTP\r\n"))))
        #expect(error?.kind == .damaged)
        #expect(error?.operation == "connect")
        #expect(error?.advice?.contains("See that an NBD server listens there") == true)
    }

    @Test func `who says nothing is given up`() async throws {
        let patience = Patience(handshake: .milliseconds(300), silence: .seconds(90), another: .seconds(3))
        let error = try await failure(greeting(.none), patience: patience)
        #expect(error?.kind == .unreachable)
        #expect(error?.reason.hasPrefix("no end of the handshake") == true)
    }

    @Test func `who hangs up is told so`() async throws {
        var script = FakeServer.Script()
        script.mostConnections = 0
        let error = try await failure(script)
        #expect(error?.kind == .unreachable)
        #expect(error?.reason == "the server closed the connection during the handshake")
    }

    @Test func `an export that isn't there is missing`() async throws {
        let error = try await failure(FakeServer.Script(), export: "other")
        #expect(error?.kind == .missing)
        #expect(error?.reason.contains("no export \"other\"") == true)
    }

    @Test func `a server that demands TLS is refused, as is an address that does`() async throws {
        var script = FakeServer.Script()
        script.policy = ServerPolicy(tls: .required)
        let error = try await failure(script)
        #expect(error?.kind == .forbidden)
        #expect(error?.advice?.contains("nbds+unix://") == true)
    }

    @Test func `nobody listens, or nothing is there`() async throws {
        for (address, kind, reason) in [
            ("nbd+unix:///?socket=/nonexistent/socket", VolumeError.Kind.missing, "No such file or directory"),
            ("nbd://127.0.0.1:1/x", .unreachable, "Connection refused"),
        ] {
            await #expect {
                _ = try await NBDExport.connect(to: try NBDAddress(address))
            } throws: { error in
                let error = error as? VolumeError
                return error?.kind == kind && error?.object == address && error?.reason == reason
                    && error?.advice != nil
            }
        }
    }
}

extension ReplyHeader {
    var bytes: ByteBuffer {
        var bytes = ByteBuffer()
        write(to: &bytes)
        return bytes
    }
}
