//! What the fuzz targets share.
//!
//! The call path is compiled here from the agent's own sources, without the rest of the agent: it needs little else, so
//! that a build with the fuzzer's instrumentation takes a minute and not ten.
//!
//! `fuzz_targets/` has one file a target, each of which says what must hold; [`story`] drives one end of a connection for
//! those that are about frames, [`pieces`] cuts input as a network does. [`our_server`] and [`crate_server`] have each an [`opinion`] of the
//! same input; [`disagreements`] says where these may differ.

// The agent's lints hold where these files are at home; here most of them serve nobody.
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../agent/src/balance/mod.rs"]
pub mod balance;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../agent/src/clock.rs"]
pub mod clock;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../agent/src/http2/mod.rs"]
pub mod http2;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../agent/src/mesh/mod.rs"]
pub mod mesh;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../agent/src/proxy/mod.rs"]
pub mod proxy;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../agent/src/routing/mod.rs"]
pub mod routing;

/// What the call path counts with, and tells of single calls.
#[path = "."]
pub mod telemetry {
    #[allow(dead_code, unused_imports, reason = "the targets use a part of it")]
    #[path = "../../agent/src/telemetry/calls/mod.rs"]
    mod calls;

    #[allow(dead_code, unused_imports, reason = "the targets use a part of it")]
    #[path = "../../agent/src/telemetry/outlet.rs"]
    mod outlet;
    #[allow(dead_code, reason = "the targets use a part of it")]
    #[path = "../../agent/src/telemetry/path_count.rs"]
    mod path_count;
    #[allow(dead_code, unused_imports, reason = "the targets use a part of it")]
    #[path = "../../agent/src/telemetry/records/mod.rs"]
    mod records;
    #[allow(dead_code, unused_imports, reason = "the targets use a part of it")]
    #[path = "../../agent/src/telemetry/traces/mod.rs"]
    mod traces;

    pub use calls::*;
    pub use outlet::*;
    pub use path_count::*;
    pub use records::*;
    pub use traces::*;
}

pub mod crate_server;
pub mod disagreements;
pub mod opinion;
pub mod our_server;
pub mod pieces;
pub mod story;
