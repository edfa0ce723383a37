import NIOCore
import Testing
import Volumes

@testable import NBDProtocol

/// What each session does in every state at every event: the step, and the state after it.
///
/// `wanted` is what the state waits for, or one more message if it waits for an answer; `junk` are bytes of ones. "-" is
/// no step, "trap" a caller that doesn't keep to the order.
struct TableTests {
    static let server = """
        state           | wanted                 | junk                   | ended        | shutDown          | tlsStarted | exports        | answer        | grant
        clientFlags     | - option               | close closed           | close closed | - clientFlags     | trap       | trap           | trap          | trap
        option          | list listing           | close closed           | close closed | - option          | trap       | trap           | trap          | trap
        optionData      | find finding           | send option            | close closed | - optionData      | trap       | trap           | trap          | trap
        skippingOption  | send option            | send option            | close closed | - skippingOption  | trap       | trap           | trap          | trap
        upgrading       | - upgrading            | close closed           | close closed | - upgrading       | - option   | trap           | trap          | trap
        listing         | - listing              | - listing              | close closed | - listing         | trap       | send option    | trap          | trap
        finding         | - finding              | - finding              | close closed | - finding         | trap       | trap           | enter request | trap
        granting        | - granting             | - granting             | close closed | - granting        | trap       | trap           | trap          | relayed closed
        request         | request request        | close closed           | close closed | - request         | trap       | trap           | trap          | trap
        payload         | payload request        | payload request        | close closed | - payload         | trap       | trap           | trap          | trap
        contexts        | request request        | send request           | close closed | - contexts        | trap       | trap           | trap          | trap
        skippingPayload | send request           | send request           | close closed | - skippingPayload | trap       | trap           | trap          | trap
        closed          | - closed               | - closed               | - closed     | - closed          | trap       | trap           | trap          | trap
        """

    static let client = """
        state           | wanted                 | junk                   | ended        | tlsStarted       | request             | disconnect
        magic           | - handshakeFlags       | close closed           | close closed | trap             | trap                | trap
        handshakeFlags  | send optionReply       | send optionReply       | close closed | trap             | trap                | trap
        optionReply     | send optionReply       | close closed           | close closed | trap             | trap                | trap
        optionReplyData | send optionReply       | send optionReply       | close closed | trap             | trap                | trap
        upgrading       | - upgrading            | close closed           | close closed | send optionReply | trap                | trap
        exportNameReply | entered replyMagic     | close closed           | close closed | trap             | trap                | trap
        replyMagic      | - replyHeader          | close closed           | close closed | trap             | bytes replyMagic    | bytes replyMagic
        replyHeader     | finished replyMagic    | close closed           | close closed | trap             | bytes replyHeader   | bytes replyHeader
        chunk           | hole replyMagic        | close closed           | close closed | trap             | bytes chunk         | bytes chunk
        data            | data replyMagic        | data replyMagic        | close closed | trap             | bytes data          | bytes data
        descriptors     | status replyMagic      | status replyMagic      | close closed | trap             | bytes descriptors   | bytes descriptors
        finishing       | finished replyMagic    | finished replyMagic    | close closed | trap             | bytes finishing     | bytes finishing
        closed          | - closed               | - closed               | - closed     | trap             | trap                | trap
        """

    struct Cell: Sendable, Codable, CustomStringConvertible {
        let state: String
        let event: String
        let outcome: String
        var description: String { "\(state), \(event)" }
    }

    static func cells(_ table: String) -> [Cell] {
        let rows = table.split(separator: "\n").map { row in
            row.split(separator: "|").map { $0.split(separator: " ").joined(separator: " ") }
        }
        return rows.dropFirst().flatMap { row in
            zip(rows[0], row).dropFirst().map { Cell(state: row[0], event: $0, outcome: $1) }
        }
    }

    @Test func `no state is missing, and no event`() {
        let server = Self.cells(Self.server)
        #expect(server.count == ServerKind.allCases.count * 8)
        #expect(Set(server.map(\.state)) == Set(ServerKind.allCases.map(\.rawValue)))
        let client = Self.cells(Self.client)
        #expect(client.count == ClientKind.allCases.count * 6)
        #expect(Set(client.map(\.state)) == Set(ClientKind.allCases.map(\.rawValue)))
    }

    @Test(arguments: cells(server).filter { $0.outcome != "trap" })
    func `the server does what the table says`(cell: Cell) {
        #expect(Self.serverOutcome(cell) == cell.outcome)
    }

    @Test(arguments: cells(client).filter { $0.outcome != "trap" })
    func `the client does what the table says`(cell: Cell) {
        #expect(Self.clientOutcome(cell) == cell.outcome)
    }

    @Test(arguments: cells(server).filter { $0.outcome == "trap" })
    func `the server's caller keeps to the order`(cell: Cell) async {
        await #expect(processExitsWith: .failure) { [cell] in _ = TableTests.serverOutcome(cell) }
    }

    @Test(arguments: cells(client).filter { $0.outcome == "trap" })
    func `the client's caller keeps to the order`(cell: Cell) async {
        await #expect(processExitsWith: .failure) { [cell] in _ = TableTests.clientOutcome(cell) }
    }

    // MARK: One cell

    private static let junk = ByteBuffer(repeating: 0xff, count: 64)

    static func serverOutcome(_ cell: Cell) -> String? {
        guard var (session, wanted) = ServerKind(rawValue: cell.state)?.session() else { return nil }
        guard ServerKind(session.state).rawValue == cell.state else { return "not even \(cell.state)" }
        var step: ServerSession.Step?
        switch cell.event {
        case "wanted": step = session.receive(&wanted)
        case "junk":
            var junk = Self.junk
            step = session.receive(&junk)
        case "ended": step = session.inputEnded().map { .close($0) }
        case "shutDown": session.shutDown()
        case "tlsStarted": session.tlsStarted()
        case "exports": step = session.exports([])
        case "answer": step = session.answer(.found(.sample))
        case "grant": step = session.grantRelay(ByteBuffer(string: "granted"))
        default: return nil
        }
        return "\(step.map(name) ?? "-") \(ServerKind(session.state).rawValue)"
    }

    static func clientOutcome(_ cell: Cell) -> String? {
        guard var (session, wanted) = ClientKind(rawValue: cell.state)?.session() else { return nil }
        guard ClientKind(session.state).rawValue == cell.state else { return "not even \(cell.state)" }
        var step: ClientSession.Step?
        switch cell.event {
        case "wanted": step = session.receive(&wanted)
        case "junk":
            var junk = Self.junk
            step = session.receive(&junk)
        case "ended": step = session.inputEnded().map { .close($0) }
        case "tlsStarted": step = session.tlsStarted()
        case "request":
            guard (try? session.request(.flush)) != nil else { return nil }
            return "bytes \(ClientKind(session.state).rawValue)"
        case "disconnect":
            _ = session.disconnect()
            return "bytes \(ClientKind(session.state).rawValue)"
        default: return nil
        }
        return "\(step.map(name) ?? "-") \(ClientKind(session.state).rawValue)"
    }

    private static func name(_ step: ServerSession.Step) -> String {
        switch step {
        case .send: "send"
        case .startTLS: "startTLS"
        case .list: "list"
        case .find: "find"
        case .relay: "relay"
        case .relayed: "relayed"
        case .enter: "enter"
        case .request: "request"
        case .payload: "payload"
        case .close: "close"
        }
    }

    private static func name(_ step: ClientSession.Step) -> String {
        switch step {
        case .send: "send"
        case .startTLS: "startTLS"
        case .listed: "listed"
        case .relayed: "relayed"
        case .entered: "entered"
        case .data: "data"
        case .hole: "hole"
        case .status: "status"
        case .finished: "finished"
        case .close: "close"
        }
    }
}
