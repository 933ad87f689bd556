//! What whoever looks at a stream can bear: colours are for terminals alone, and never against `NO_COLOR` (<https://no-color.org>: set, and
//! not empty).

use std::env;
use std::io::IsTerminal;

/// Whether it is a terminal that can be steered: a dumb one shows what would steer another.
pub fn can_be_steered(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether it may have colours.
pub fn bears_colours(stream: &impl IsTerminal) -> bool {
    can_be_steered(stream) && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
