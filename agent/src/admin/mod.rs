//! The local HTTP endpoints: what is true now ([`routes()`]), for people and programs on the node, and the probes
//! ([`probes()`]) and the metrics ([`metrics()`]) on ports of their own.
//!
//! A request meets [`guard`], which lets no web page ask; [`page`], the table of paths; [`filter`], its parameters; [`accept`], the
//! form of the answer; and [`mod@routes`], which has it answered. [`refusal`] is the answer where that makes no sense; [`text`] makes
//! [`table`]s of an answer for people. [`ui`] is the page for
//! browsers, [`tap`] what goes on and on, [`stacks`] profiles by stack. [`listen`] is where the endpoints are, [`serve`] the loop that takes connections there,
//! [`mod@openapi`] describes the answers, and [`log`] is
//! the one thing that can be changed.

mod accept;
mod filter;
mod guard;
mod listen;
mod log;
mod metrics;
mod openapi;
mod page;
mod probes;
mod refusal;
mod routes;
mod serve;
mod stacks;
pub mod table;
mod tap;
mod text;
mod ui;

pub use accept::Form;
pub use filter::Filter;
pub use guard::Access;
pub use listen::{AdminAddress, AdminListener, SocketFile, bind, bind_admin, serve_all};
pub use metrics::{NumbersWanted, metrics, scrapes};
pub use openapi::openapi;
pub use page::Page;
pub use probes::{Readiness, probes};
pub use routes::{Admin, Question, json, questions, routes};
pub use text::page_text;
