//! The layer against itself, against frames made by hand, and against the `h2` crate.

mod cancels;
mod floods;
mod frames;
mod messages;
mod pair;
mod peer;
mod random;
mod wire;
