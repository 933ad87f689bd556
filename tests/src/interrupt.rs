//! Ctrl-C, SIGTERM and SIGHUP: whoever makes cgroups, namespaces and processes that outlive it takes them away first.
//!
//! The demos end in their ordinary way ([`listen`], [`check`]); a test process, which has many threads and no such way, cleans up and dies
//! of the signal ([`then`]).

use anyhow::{Result, bail};
use std::io::{PipeWriter, Read, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

static LISTENING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static TO_CLEANER: OnceLock<PipeWriter> = OnceLock::new();

/// Notes the signals from now on, for [`check`].
pub(crate) fn listen() {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    LISTENING.store(true, Ordering::Relaxed);
    handle(note);
}

/// An error once after a signal has come: what cleans up afterwards waits undisturbed.
///
/// # Errors
/// Then.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.swap(false, Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// When a signal comes, does `clean_up` before the process dies of it; not where somebody listens.
///
/// # Errors
/// The kernel's own.
pub(crate) fn then(clean_up: fn()) -> Result<()> {
    extern "C" fn wake(signal: libc::c_int) {
        if let (Some(mut writer), Ok(signal)) = (TO_CLEANER.get(), u8::try_from(signal)) {
            // A write of one byte to a pipe is one system call, which is async-signal-safe.
            let _ = writer.write(&[signal]);
        }
    }
    if LISTENING.load(Ordering::Relaxed) {
        return Ok(());
    }
    let (mut reader, writer) = std::io::pipe()?;
    if TO_CLEANER.set(writer).is_err() {
        return Ok(());
    }
    std::thread::spawn(move || {
        let mut signal = [0];
        if reader.read_exact(&mut signal).is_ok() {
            heed_no_more();
            clean_up();
            // SAFETY: no memory is involved.
            unsafe { libc::raise(signal[0].into()) };
        }
    });
    handle(wake);
    Ok(())
}

/// Ends the process at once when the next signal comes: whoever asks twice does not want to wait.
fn heed_no_more() {
    set(libc::SIG_DFL);
}

fn handle(handler: extern "C" fn(libc::c_int)) {
    set(handler as libc::sighandler_t);
}

fn set(handler: libc::sighandler_t) {
    for signal in SIGNALS {
        // SAFETY: the handlers above do what is async-signal-safe, and nothing else; the default action takes no memory of ours.
        unsafe {
            // Whoever started us with a signal ignored, as nohup does, wants it so.
            if libc::signal(signal, handler) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
}
