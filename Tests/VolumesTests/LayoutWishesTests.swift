import Testing
import Volumes

struct LayoutWishesTests {
    private static let plain = Layout(
        objectSize: .mebibytes(4), stripeUnit: .mebibytes(4), stripeCount: 1, dataPool: nil,
        features: ["layering", "exclusive-lock"])
    private static let striped = Layout(
        objectSize: .mebibytes(4), stripeUnit: .kibibytes(64), stripeCount: 8, dataPool: "ec",
        features: ["layering", "striping", "data-pool"])

    struct Case: CustomTestStringConvertible {
        let testDescription: String
        let wishes: LayoutWishes
        let source: Layout?
        let expected: Layout
    }

    private static func layout(_ base: Layout, _ change: (inout Layout) -> Void) -> Layout {
        var layout = base
        change(&layout)
        return layout
    }

    static let cases: [Case] = [
        Case(testDescription: "as the source, plain", wishes: LayoutWishes(), source: plain, expected: plain),
        Case(testDescription: "as the source, striped", wishes: LayoutWishes(), source: striped, expected: striped),
        Case(
            testDescription: "a source without objects gets librbd's own layout", wishes: LayoutWishes(), source: nil,
            expected: Layout(
                objectSize: .mebibytes(4), stripeUnit: .mebibytes(4), stripeCount: 1, dataPool: nil,
                features: ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"])),
        Case(
            testDescription: "a plain image stays plain with another object size",
            wishes: LayoutWishes(objectSize: .mebibytes(8)), source: plain,
            expected: layout(plain) { ($0.objectSize, $0.stripeUnit) = (.mebibytes(8), .mebibytes(8)) }),
        Case(
            testDescription: "a striped image keeps its unit with another object size",
            wishes: LayoutWishes(objectSize: .mebibytes(8)), source: striped,
            expected: layout(striped) { $0.objectSize = .mebibytes(8) }),
        Case(
            testDescription: "a unit that no longer fits becomes the object",
            wishes: LayoutWishes(objectSize: .kibibytes(32)), source: striped,
            expected: layout(striped) { ($0.objectSize, $0.stripeUnit) = (.kibibytes(32), .kibibytes(32)) }),
        Case(
            testDescription: "striping is added to a plain image",
            wishes: LayoutWishes(stripeUnit: .kibibytes(64), stripeCount: 4), source: plain,
            expected: layout(plain) {
                ($0.stripeUnit, $0.stripeCount) = (.kibibytes(64), 4)
                $0.features.insert("striping")
            }),
        Case(
            testDescription: "striping is taken from a striped one",
            wishes: LayoutWishes(stripeUnit: .mebibytes(4), stripeCount: 1), source: striped,
            expected: layout(striped) {
                ($0.stripeUnit, $0.stripeCount) = (.mebibytes(4), 1)
                $0.features.remove("striping")
            }),
        Case(
            testDescription: "several objects at once, each unit a whole object",
            wishes: LayoutWishes(stripeCount: 3), source: plain,
            expected: layout(plain) {
                $0.stripeCount = 3
                $0.features.insert("striping")
            }),
        Case(
            testDescription: "a data pool", wishes: LayoutWishes(dataPool: "slow"), source: plain,
            expected: layout(plain) {
                $0.dataPool = "slow"
                $0.features.insert("data-pool")
            }),
        Case(
            testDescription: "features replace the source's, and what the layout implies is added",
            wishes: LayoutWishes(features: ["journaling", "exclusive-lock"]), source: striped,
            expected: layout(striped) {
                $0.features = ["journaling", "exclusive-lock", "striping", "data-pool"]
            }),
        Case(
            testDescription: "states that are not features to choose don't come along", wishes: LayoutWishes(),
            source: layout(plain) { $0.features.formUnion(["operations", "migrating", "non-primary"]) },
            expected: plain),
        Case(
            testDescription: "a feature that the layout contradicts is dropped",
            wishes: LayoutWishes(features: ["striping", "data-pool", "layering"]), source: plain,
            expected: layout(plain) { $0.features = ["layering"] }),
    ]

    @Test(arguments: cases)
    func `a target's layout is the source's, changed as wished`(wish: Case) {
        #expect(wish.wishes.applied(to: wish.source) == wish.expected)
    }
}
