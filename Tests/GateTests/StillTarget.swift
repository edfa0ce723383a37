import Conformance
import Volumes

@testable import Mirror

/// A target that a still head is moved to as it is, as it is from image to image.
struct StillTarget: TargetWrapper {
    let inner: any TargetVolume

    func route(from source: any Volume) async throws(VolumeError) -> (any Route)? {
        StillRoute(stream: StreamRoute(source: source, target: inner, granularity: Granularity(Granularity.smallest)!))
    }
}

private struct StillRoute: Route {
    let stream: StreamRoute
    let takesStillHeads = true

    func begin(_ step: Step, resumed: ByteOffset?) async throws(VolumeError) -> any StepMover {
        try await stream.begin(step, resumed: resumed)
    }
}
