//! The terminal, for as long as it is ours: drawn over in one go, keys as they are pressed, and given back as it was.

use anyhow::{Context as _, Result};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::io::{ErrorKind, Read as _, Write as _, stdin, stdout};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Another screen than the one that the shell wrote on, no cursor, and long lines cut.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Lines of a screen whose size is not known.
const USUAL_LINES: u16 = 24;

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Sort,
    By,
    Other,
}

impl Key {
    fn of(byte: u8) -> Self {
        match byte {
            // And Ctrl-C, Ctrl-D, Ctrl-Z.
            b'q' | b'Q' | 3 | 4 | 26 => Self::Quit,
            b's' | b'S' => Self::Sort,
            b'b' | b'B' => Self::By,
            _ => Self::Other,
        }
    }
}

/// The terminal.
pub(super) struct Screen {
    before: Termios,
    keys: mpsc::Receiver<Key>,
    /// SIGTERM, SIGINT, SIGHUP: whatever would end the process without giving the terminal back.
    ends: [Signal; 3],
}

impl Screen {
    /// Takes the terminal until it is dropped.
    pub(super) fn take() -> Result<Self> {
        let before = tcgetattr(stdin()).context("standard input is no terminal: --once looks without one")?;
        let ends = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ];
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("the terminal cannot be set up")?;
        let (pressed, keys) = mpsc::channel(16);
        // Reads until the process ends: nothing else can wait for a key of a blocking terminal.
        std::thread::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = stdin().read(&mut byte) {
                if pressed.blocking_send(Key::of(byte[0])).is_err() {
                    return;
                }
            }
            let _ = pressed.blocking_send(Key::Quit);
        });
        give_back_after_panics(before.clone());
        let screen = Self { before, keys, ends };
        write(ENTER)?;
        Ok(screen)
    }

    /// The next key. Cancel-safe.
    pub(super) async fn key(&mut self) -> Key {
        let [terminated, interrupted, hung_up] = &mut self.ends;
        tokio::select! {
            key = self.keys.recv() => key.unwrap_or(Key::Quit),
            _ = terminated.recv() => Key::Quit,
            _ = interrupted.recv() => Key::Quit,
            _ = hung_up.recv() => Key::Quit,
        }
    }

    /// Draws as much of a text as there is room for. Whether anybody looks.
    pub(super) fn draw(&mut self, text: &str) -> Result<bool> {
        // A serial line says 0.
        let lines = tcgetwinsize(stdout()).ok().map(|size| size.ws_row).filter(|rows| *rows > 0);
        let lines = lines.unwrap_or(USUAL_LINES);
        let mut drawn = String::from("\x1b[H");
        for (position, line) in text.lines().take(lines.into()).enumerate() {
            if position > 0 {
                drawn.push_str("\r\n");
            }
            drawn.push_str(line);
            drawn.push_str("\x1b[K");
        }
        drawn.push_str("\x1b[J");
        write(&drawn)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&self.before);
    }
}

fn give_back(before: &Termios) {
    // There is nobody to tell.
    let _ = write(LEAVE);
    let _ = tcsetattr(stdin(), OptionalActions::Now, before);
}

/// Where a panic aborts, nothing is dropped.
fn give_back_after_panics(before: Termios) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back(&before);
        usual(panic);
    }));
}

fn write(text: &str) -> Result<bool> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to the terminal"),
    }
}
