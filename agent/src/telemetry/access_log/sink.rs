//! Where the access log goes: standard output, or a file that somebody else may move away.

use crate::telemetry::PAUSE;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

/// A fresh file is for its owner, and for a group that collects logs: it says who called what.
const FILE_MODE: u32 = 0o640;

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum AccessLogTo {
    /// Standard output.
    Stdout,
    /// The file at this path, made if there is none, appended to if there is one.
    File(PathBuf),
}

impl FromStr for AccessLogTo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "stdout" => Ok(Self::Stdout),
            path if path.starts_with('/') => Ok(Self::File(path.into())),
            _ => Err("expected stdout, or the path of a file, from the root on"),
        }
    }
}

impl fmt::Display for AccessLogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Serialize for AccessLogTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is written to.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// Where it is to be; `None`: wherever standard output is.
    path: Option<PathBuf>,
    /// The last line was not written to its end.
    is_torn: bool,
}

/// Not all of a text was written.
#[derive(Debug)]
pub(super) struct Partly {
    /// So much of it was.
    pub(super) bytes: usize,
    pub(super) error: io::Error,
}

impl Sink {
    pub(super) fn open(to: &AccessLogTo) -> io::Result<Self> {
        Ok(match to {
            AccessLogTo::Stdout => {
                let file = io::stdout().as_fd().try_clone_to_owned()?.into();
                Self { file, path: None, is_torn: false }
            }
            AccessLogTo::File(path) => {
                let file = append(path)?;
                Self { is_torn: ends_within_a_line(&file, path), file, path: Some(path.clone()) }
            }
        })
    }

    /// Writes the text, whose lines are whole. It takes as long as it takes.
    pub(super) fn write(&mut self, text: &[u8]) -> Result<(), Partly> {
        let at_start = |error| Partly { bytes: 0, error };
        self.follow().map_err(at_start)?;
        if self.is_torn {
            write_all(&mut self.file, b"\n").map_err(|partly| at_start(partly.error))?;
            self.is_torn = false;
        }
        write_all(&mut self.file, text).inspect_err(|partly| {
            self.is_torn = partly.bytes > 0 && text[partly.bytes - 1] != b'\n';
        })
    }

    /// Opens the file anew where it is not at its path any more, as after logrotate has moved it.
    fn follow(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let ours = self.file.metadata()?;
        let is_ours = match fs::metadata(path) {
            Ok(there) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_ours {
            self.file = append(path)?;
            self.is_torn = ends_within_a_line(&self.file, path);
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    // A pipe that nobody has opened would else be waited for, here and now.
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Whether who wrote to it before did not come to the end of a line, as one that was killed, or whose disk was full.
fn ends_within_a_line(file: &File, path: &Path) -> bool {
    // What is only appended to cannot be read; what cannot be read at all is taken as whole.
    let last = file.metadata().and_then(|of_file| {
        let Some(at) = of_file.len().checked_sub(1).filter(|_| of_file.is_file()) else { return Ok(b'\n') };
        let mut last = [0];
        let readable = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        readable.read_exact_at(&mut last, at)?;
        Ok(last[0])
    });
    last.is_ok_and(|last| last != b'\n')
}

fn write_all(file: &mut File, text: &[u8]) -> Result<(), Partly> {
    let mut bytes = 0;
    while bytes < text.len() {
        match file.write(&text[bytes..]) {
            Ok(0) => return Err(Partly { bytes, error: ErrorKind::WriteZero.into() }),
            Ok(written) => bytes += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A pipe that is full, and that somebody has made non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(Partly { bytes, error }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_moved_away_is_made_anew_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        fs::write(&path, "before\n").unwrap();
        let mut sink = Sink::open(&AccessLogTo::File(path.clone())).unwrap();
        sink.write(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        sink.write(b"two\n").unwrap();
        // As logrotate's `copytruncate` does.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        sink.write(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\none\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777 & !FILE_MODE, 0);
        // With its folder, too, once that is there again.
        drop(folder);
        assert_eq!(sink.write(b"four\n").unwrap_err().bytes, 0);
    }

    #[test]
    fn a_full_disk_tears_no_line_that_comes_after() {
        let mut sink = Sink::open(&AccessLogTo::File("/dev/full".into())).unwrap();
        let partly = sink.write(b"one\n").unwrap_err();
        assert_eq!((partly.bytes, partly.error.kind()), (0, ErrorKind::StorageFull));
        // What a program that was killed leaves behind.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        fs::write(&path, "on").unwrap();
        let mut sink = Sink::open(&AccessLogTo::File(path.clone())).unwrap();
        sink.write(b"two\n").unwrap();
        sink.write(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "on\ntwo\nthree\n");
    }

    #[test]
    fn a_pipe_without_a_reader_is_no_place_for_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        assert!(Sink::open(&AccessLogTo::File(path)).is_err());
    }
}
