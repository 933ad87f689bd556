//! What is told of single calls.
//!
//! A call that is over meets the [`Audience`]: if nobody is there, that was all. Else it becomes a [`CallRecord`] for each who wants it, its
//! headers, if they are wanted, without [`secrets`]: for the access log (`super::access_log`), and for [`taps`], each with a [`filter`].

mod audience;
mod call_record;
mod filter;
mod secrets;
mod taps;

pub use audience::{Audience, LoggedCalls};
pub use call_record::{CallRecord, RecordDestination, RecordEndpoint, RecordSource};
pub use filter::{StatusFilter, TapFilter};
pub use secrets::SECRET_NAMES;
pub use taps::{MOST_TAPS, OpenTap, TooManyTaps};
