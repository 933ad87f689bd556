//! How many of the calls leave the neighbourhood when endpoints nearby are out.
//!
//! Hints (`trafficDistribution`, topology-aware routing) keep calls near, as kube-proxy does; Kubernetes calls them a preference. When of
//! the near endpoints so many are out that the rest cannot bear the load, a part of the calls goes farther: Envoy's rule for
//! localities and priorities. Where `internalTrafficPolicy` is `Local` there is nothing farther: that is a promise.

/// Endpoints are taken to be able to bear so much more than their share, in percent (Envoy's overprovisioning factor): while five of
/// seven are well, all calls stay near.
pub const OVERPROVISIONING_PERCENT: usize = 140;

/// The part of the calls that goes to all endpoints, near and far, where `left` of the `near` ones are not out: 0 to 1.
pub fn share(left: usize, near: usize) -> f64 {
    if near == 0 {
        return 1.0;
    }
    let stays = (left * OVERPROVISIONING_PERCENT) as f64 / (near * 100) as f64;
    (1.0 - stays).max(0.0)
}
