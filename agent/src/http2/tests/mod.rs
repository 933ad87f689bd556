//! The layer against itself, against frames made by hand, and against the `h2` crate.

mod frames;
mod pair;
mod peer;
mod wire;
