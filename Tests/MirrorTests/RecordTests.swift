import Conformance
import Foundation
import Testing

@testable import Mirror

struct RecordTests {
    private var full: Record {
        var record = Record(
            source: "rbd:fsid/3/tenant/10e7", sourceAddress: #"rbd:fast/tenant/größe "☃" \:/x@y"#, snapshots: .none)
        record.phase = .committing
        record.sourceClient = "127.0.0.1:0/3141"
        record.transients = ["godwit.1f", "godwit.2e"]
        record.arrived = .max
        record.isUnderWay = true
        record.goal = .max - 1
        record.settledBytes = .max
        return record
    }
    private var fresh: Record { Record(source: "a", sourceAddress: "b", snapshots: .all) }

    @Test func `a record comes back from its text`() throws {
        for record in [full, fresh] {
            #expect(try Record(text: record.text()) == record)
            #expect(try Record(text: record.text()).text() == record.text())
        }
    }

    @Test func `a record is one line, and says no more than it has to`() {
        #expect(!full.text().contains("\n"))
        #expect(fresh.text().utf8.count < 240)
    }

    @Test func `a record of a newer godwit is told from a damaged one`() {
        let newer = fresh.text().replacing(#""version":2"#, with: #""version":3"#)
        #expect(throws: Record.Unreadable.newer(3)) { try Record(text: newer) }
        #expect(throws: Record.Unreadable.newer(7)) { try Record(text: #"{"version":7,"unheard":[{}]}"#) }
    }

    @Test(arguments: [
        "", "{}", "null", "[]", "1", "{\"version\":2}", "{\"version\":\"1\"}", "{\"version\":1.5}", "rubbish",
        "{\"version\":99999999999999999999}",
    ])
    func `what is no record is damaged`(text: String) {
        #expect(throws: Record.Unreadable.malformed) { try Record(text: text) }
    }

    @Test func `a record that lacks a field, or has a wrong one, is damaged`() throws {
        let whole = try #require(JSONSerialization.jsonObject(with: Data(full.text().utf8)) as? [String: Any])
        // These may be missing: there is nothing to say.
        let optional: Set = ["arrived", "goal", "sourceClient"]
        for key in whole.keys where key != "version" {
            var fields = whole
            fields[key] = nil
            if !optional.contains(key) {
                #expect(throws: Record.Unreadable.malformed, "without \(key)") { try Record(text: text(fields)) }
            }
            fields[key] = ["of another kind": 1]
            #expect(throws: Record.Unreadable.malformed, "\(key)") { try Record(text: text(fields)) }
        }
        for (key, value) in ["phase": "resting", "snapshots": "some", "settledBytes": -1] as [String: Any] {
            var fields = whole
            fields[key] = value
            #expect(throws: Record.Unreadable.malformed, "\(key)") { try Record(text: text(fields)) }
        }
    }

    private func text(_ fields: [String: Any]) throws -> String {
        String(decoding: try JSONSerialization.data(withJSONObject: fields), as: UTF8.self)
    }

    @Test func `a record that was cut short is damaged, wherever it was cut`() {
        let text = full.text()
        for length in 0..<text.count {
            #expect(throws: Record.Unreadable.malformed) { try Record(text: String(text.prefix(length))) }
        }
    }

    @Test func `ten thousand damaged records are read or refused, and none ends the process`() {
        let seed: UInt64 = 11
        var random = SplitMix64(seed: seed)
        let pattern = Array(full.text().utf8)
        var refused = 0
        for _ in 0..<10_000 {
            var bytes = pattern
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: .min ... .max, using: &random)
            }
            do throws(Record.Unreadable) { _ = try Record(text: String(decoding: bytes, as: UTF8.self)) } catch {
                refused += 1
            }
        }
        #expect(refused > 1000, "seed \(seed)")
    }
}

extension Record.Unreadable: Equatable {
    static func == (left: Self, right: Self) -> Bool {
        switch (left, right) {
        case (.malformed, .malformed): true
        case (.newer(let ours), .newer(let theirs)): ours == theirs
        default: false
        }
    }
}
