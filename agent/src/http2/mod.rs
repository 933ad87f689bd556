//! HTTP/2 (RFC 9113) made for relaying: frames in, events out, without I/O, clock or threads.
//!
//! A [`Connection`] is one end of one connection, in the server's or the client's role. Its owner reads a socket into a
//! buffer of its own and hands the bytes to [`Connection::receive`], acts on each [`Event`], and writes
//! [`Connection::output`] to the socket. The layer knows nothing of proxying; what makes it cheap to relay with is that a
//! decoded header list ([`FieldList`]) carries along what the encoder on the other side would otherwise work out again.
//!
//! The files, in the order in which a frame's bytes meet them:
//! `preface` and `frame` (bytes to frame headers) → `connection/receive` (which frame is allowed where) →
//! `connection/header_block` and `hpack/decoder` (a block to a field list, held against `message`'s rules) →
//! `connection/control`, `settings` and `calm` (frames that end here) → `stream` (what a stream remembers) → `flow` (credit), `turns` (who writes next) →
//! `connection/send`, `hpack/encoder` and `output` (back to bytes). `name` and `fields` are the words that all of them use.

mod calm;
mod connection;
mod error;
mod fields;
mod flow;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hpack;
mod limits;
mod message;
mod name;
mod output;
mod settings;
mod stream;
mod turns;

pub use connection::{Connection, Event, HeadersKind, LastStream, OpenError, Progress, Thrift, Waits};
pub use error::{ConnectionError, ErrorCode, Flood};
pub use fields::{Field, FieldList};
pub use frame::PREFACE;
pub use limits::Limits;
pub use name::Name;
pub use stream::StreamKey;

#[cfg(test)]
mod tests;
