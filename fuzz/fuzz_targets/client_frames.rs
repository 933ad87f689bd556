//! Any bytes at all to the client's end of a connection: see [`evenkeel_fuzz::story::check`]. The first byte says how the others
//! are cut.
#![no_main]

use evenkeel_fuzz::story::{Role, check};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((cut, bytes)) = input.split_first() {
        check(Role::Client, *cut, bytes);
    }
});
