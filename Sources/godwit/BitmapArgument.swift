internal import ArgumentParser
internal import NBDVolumes
internal import Volumes

extension DirtyBitmap: ExpressibleByArgument {
    init?(argument: String) { self.init(argument) }

    /// - Parameter source: An address that can be read.
    func refuseUnlessExport(_ source: String) throws {
        if case .nbd = try AddressArgument.explained(source).address { return }
        throw ValidationError("--dirty-bitmap: '\(source)' is no NBD server's export, and has no dirty bitmaps")
    }
}
