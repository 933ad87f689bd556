//! Running other programs: long ones on our own terminal, so that their progress shows; short ones for their answer.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Says what comes next.
pub(crate) fn step(what: &str) {
    eprintln!("==> {what}");
}

/// Becomes a program, which then has our terminal, and what is typed there, to itself: it may have much to take away after a Ctrl-C.
///
/// # Errors
/// If it cannot be started; else nothing of ours goes on.
pub(crate) fn become_program(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", shown(command)))
}

/// Runs a program on our terminal until it ends.
///
/// # Errors
/// If it cannot be started or ends with another status than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a program until it ends, with what it prints on our terminal as well as, a line at a time, in `read`.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_and_read(command: &mut Command, mut read: impl FnMut(&str)) -> Result<()> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", shown(command)))?;
    let output = child.stdout.take().expect("it was asked for");
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("cannot read what {} prints", shown(command)))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        read(&line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// What a program prints, without the white space around it; its complaints stay unseen unless it fails.
///
/// # Errors
/// As [`run`].
pub(crate) fn answer(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", shown(command), output.status, complaint.trim());
    }
    Ok(String::from_utf8(output.stdout)
        .with_context(|| format!("{} answers no text", shown(command)))?
        .trim()
        .to_owned())
}

/// Whether a program can be started and ends with status 0.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    answer(command).is_ok()
}

/// Whether we are root, as pods' namespaces, cgroups and BPF ask for.
pub(crate) fn is_root() -> bool {
    answer(Command::new("id").arg("-u")).is_ok_and(|uid| uid == "0")
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
