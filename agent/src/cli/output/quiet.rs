//! Standard output and standard error, whose readers may have seen enough.

use crate::admin::table::printable;
use anyhow::{Context as _, Result};
use std::io::{ErrorKind, Write as _};

/// Prints a text. Whether anybody still reads: who has closed the pipe, as `head` does, has what it wanted.
///
/// # Errors
/// When it cannot be written for another reason, as on a full disk.
pub(in crate::cli) fn print(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Says one line on standard error, where the answers are not, of whatever others have said.
pub(in crate::cli) fn complain(why: &str) {
    say(&format!("evenkeel: {}", printable(why)));
}

/// Says a line on standard error.
pub(in crate::cli) fn say(line: &str) {
    // Who does not listen has no loss of it.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
