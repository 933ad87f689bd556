//! Is the first connection of a pod taken, if its container dials as its first act, and others start at the same time? 200 pods in
//! bursts of 40 on a real node, which shares this machine with the rest of its cluster. Not a test but a measurement:
//!
//! ```text
//! cargo xtask test --test cluster_starts -- --ignored --nocapture
//! ```
//!
//! `STARTS` makes it smaller. `cluster_enrolment` has a small edition that is a test.

use evenkeel_tests::Outcome;
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::shop::{GREETER, SERVICE_PORT};
use evenkeel_tests::kubernetes::{Cluster, Shop, Starts};

const STARTS: usize = 200;
/// A node has room for 110 pods; those of a burst are deleted before the next.
const AT_ONCE: usize = 40;

#[test]
#[ignore = "a measurement of some minutes"]
fn the_first_connections_of_two_hundred_pods() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let pods = match std::env::var("STARTS") {
        Ok(number) => number.parse()?,
        Err(_) => STARTS,
    };
    let cluster = Cluster::start(1)?;
    cluster.install(&[])?;
    let shop = Shop::enrolled(&cluster, "starts")?;
    let address = shop.serve(3)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    let starts = Starts::of(&shop, "node-1", address, pods, AT_ONCE)?;
    println!("{starts}");
    starts.none_went_straight()
}
