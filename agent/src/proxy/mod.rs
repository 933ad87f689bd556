//! The data path. Synchronous, and sans-I/O but for the driver.
//!
//! The files, in the order in which a call meets them: `worker` threads `accept` a connection and read it, in `transfer`
//! (`workers` is their handle, `spread` chooses one, `socket` knows the options, `census` who is connected); the
//! [`Engine`] takes the bytes; `downstream` sniffs them and gets requests out of them (what is no HTTP/2 goes to `tunnel`);
//! `target` knows the connection's destination, `candidates` which of its endpoints may be picked; `call` is a request's state; `dispatch` asks routing and balance; `pool` has
//! connections to the endpoint, `upstream` is one of them, `retry` sends again what failed where the Service asks for it, `probe` asks whether it lives; `pump` moves bodies and trailers; `error_reply` answers where no
//! server does; `finish` counts the end, with what `measure` has seen on the way, and where `trace` knows of one ends its span. `deadline` and `timers` watch the clock, `drain` ends it all.
//! What a source of calls may cost: `budget` counts its memory, `evict` makes room in it, `circuit` counts its calls and connections to a
//! Service, `stall` sees to peers that keep it waiting, `fairness` says how much of a turn is its; `look` shows what is open; `shared_use` is
//! what the workers know of it together.

mod accept;
mod budget;
mod call;
mod candidates;
mod census;
mod circuit;
mod conns;
mod counters;
mod deadline;
mod dispatch;
mod downstream;
mod drain;
mod engine;
mod error_reply;
mod evict;
mod fairness;
mod finish;
mod idle;
pub mod look;
mod mailbox;
mod measure;
mod pool;
mod probe;
mod pump;
mod retry;
mod settle;
mod shared_use;
#[cfg(test)]
mod sim;
mod socket;
mod spread;
mod stall;
mod target;
#[cfg(test)]
mod tests;
mod timers;
mod trace;
mod transfer;
mod tunnel;
mod upstream;
mod worker;
mod workers;

pub use conns::ConnId;
pub use counters::Counters;
pub use deadline::{GRACE_NS as DEADLINE_GRACE_NS, parse as parse_timeout};
pub use engine::{Action, Engine};
pub use mailbox::Source;
pub use socket::{Dialer, OwnNamespace};
pub use target::Origin;
pub use workers::{ListenerId, ListenerSpec, WorkerView, Workers, WorkersConfig};

/// A peer that makes us write more than this and does not read it is not read either, until it does.
const PAUSE_READING_BYTES: usize = 1 << 20;

/// How long a connection that is over may take to write its last bytes and to see the peer's end.
const LINGER_NS: u64 = 2_000_000_000;
