import Foundation
import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// Bytes that no honest peer sends. Whatever comes: no trap, no more held than is bounded, and in the end a session that
/// waits or has closed.
///
/// `GODWIT_FUZZ` is how many inputs each end is given; `GODWIT_FUZZ_SEED` the first seed.
struct FuzzTests {
    static let inputs = ProcessInfo.processInfo.environment["GODWIT_FUZZ"].flatMap { Int($0) } ?? 20_000
    static let first = ProcessInfo.processInfo.environment["GODWIT_FUZZ_SEED"].flatMap { UInt64($0) } ?? 1

    @Test func `the server outlives every input`() {
        var closed = 0
        var requests = 0
        for seed in Self.first..<Self.first + UInt64(Self.inputs) {
            var fuzz = ServerFuzz(seed: seed)
            fuzz.run()
            if let fault = fuzz.fault { Issue.record("\(fault): GODWIT_FUZZ=1 GODWIT_FUZZ_SEED=\(seed)") }
            if fuzz.session.isClosed { closed += 1 }
            requests += fuzz.requests
        }
        // Inputs that get nowhere, or that break nothing, would find nothing.
        if Self.inputs >= 1000 { #expect(closed > Self.inputs / 4 && requests > Self.inputs / 2) }
    }

    @Test func `the client outlives every input`() {
        var closed = 0
        var finished = 0
        for seed in Self.first..<Self.first + UInt64(Self.inputs) {
            var fuzz = ClientFuzz(seed: seed)
            fuzz.run()
            if let fault = fuzz.fault { Issue.record("\(fault): GODWIT_FUZZ=1 GODWIT_FUZZ_SEED=\(seed)") }
            if fuzz.session.isClosed { closed += 1 }
            finished += fuzz.finished
        }
        if Self.inputs >= 1000 { #expect(closed > Self.inputs / 4 && finished > Self.inputs / 2) }
    }

    @Test func `the corpus ends as it did`() throws {
        for line in Corpus.server {
            var session = ServerSession.transmitting(line.style)
            #expect(session.steps(hex(line.bytes)).last?.violation != nil, "\(line.bytes)")
        }
        for line in Corpus.client {
            var session = ClientTransmissionTests.session(line.style)
            _ = try session.request(ClientTransmissionTests.read)
            #expect(session.steps(hex(line.bytes)).last?.violation != nil, "\(line.bytes)")
        }
    }
}
