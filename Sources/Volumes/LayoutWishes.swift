/// What the operator wants otherwise than the source has it, as `rbd create` takes it.
package struct LayoutWishes: Sendable, Equatable {
    package var objectSize: ByteCount?
    package var stripeUnit: ByteCount?
    package var stripeCount: UInt64?
    package var dataPool: String?
    package var features: Set<String>?

    package init(
        objectSize: ByteCount? = nil, stripeUnit: ByteCount? = nil, stripeCount: UInt64? = nil, dataPool: String? = nil,
        features: Set<String>? = nil
    ) {
        self.objectSize = objectSize
        self.stripeUnit = stripeUnit
        self.stripeCount = stripeCount
        self.dataPool = dataPool
        self.features = features
    }

    /// As on the command line, in one order.
    package var text: String {
        var words: [String] = []
        if let objectSize { words.append("--object-size \(objectSize.bytes)") }
        if let stripeUnit { words.append("--stripe-unit \(stripeUnit.bytes)") }
        if let stripeCount { words.append("--stripe-count \(stripeCount)") }
        if let dataPool { words.append("--data-pool \(dataPool)") }
        if let features { words.append("--image-feature \(features.sorted().joined(separator: ","))") }
        return words.joined(separator: " ")
    }

    /// The layout that a target of `source` gets; a volume that has no objects is laid out as librbd does by itself.
    package func applied(to source: Layout?) -> Layout {
        let standard = Layout(
            objectSize: .mebibytes(4), stripeUnit: .mebibytes(4), stripeCount: 1, dataPool: nil,
            features: ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"])
        var layout = source ?? standard
        let wasPlain = layout.isPlain
        if let objectSize { layout.objectSize = objectSize }
        if let stripeCount { layout.stripeCount = stripeCount }
        // A stripe unit that was the whole object stays so.
        layout.stripeUnit =
            stripeUnit ?? (wasPlain || layout.stripeUnit > layout.objectSize ? layout.objectSize : layout.stripeUnit)
        if let dataPool { layout.dataPool = dataPool }
        if let features { layout.features = features }
        layout.features.subtract(["operations", "migrating", "non-primary", "striping", "data-pool"])
        if !layout.isPlain { layout.features.insert("striping") }
        if layout.dataPool != nil { layout.features.insert("data-pool") }
        return layout
    }
}
