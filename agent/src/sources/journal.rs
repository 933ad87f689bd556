//! The rows that were known last, in a file in memory that the keeper holds: a worker process that starts again serves from
//! them at once, be the API server there or not.
//!
//! A header, then one record a change: its length in four bytes, and the change. Each change is written before it is
//! handed out, so what the kernel's maps hold is never ahead of the journal; a record that a death cut short is left out.
//! When most records are of rows that have changed since, the rows are written anew into another file.

use super::intern::Interner;
use super::rows::{Change, Hints, Row, RowKey, SliceRow};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Begins the header, with the version of its form.
const MAGIC: [u8; 8] = *b"EVKNROW2";

/// The header: the magic, which program wrote it (size and time of its file), starts since all was well, and the stamps.
const HEADER_BYTES: u64 = STAMPS_AT + 8 * STAMPS as u64;
const STARTS_AT: u64 = 24;
const STAMPS_AT: u64 = 28;

/// How many times are kept: one for each kind that a source has, and some to spare.
const STAMPS: usize = 16;

/// A worker that has died so many times in a row after it started from the journal starts without it: what kills it may be in
/// there.
const MAX_STARTS: u32 = 3;

/// After how long it is tried again to write what could not be written: each try writes all rows.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The journal is not written anew below this size.
const SMALLEST_REWRITE_BYTES: u64 = 1 << 20;

/// Hands a new file to whoever holds it.
type Hold = Box<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send>;

/// The rows that were known last, kept outside of this process.
pub struct Journal {
    file: Option<File>,
    bytes: u64,
    /// How large it was, or would have been, when it held each row once.
    compact_bytes: u64,
    stamps: [u64; STAMPS],
    /// When it could not be written last, until it can.
    failed_at: Option<Instant>,
    hold: Hold,
}

/// What a process before this one knew last.
#[derive(Debug, Default)]
pub struct Restored {
    /// The rows.
    pub rows: Vec<Row>,
    /// The times that [`Journal::stamp`] was given last; 0 where there is none.
    pub stamps: [u64; STAMPS],
}

impl Journal {
    /// A new one.
    pub fn new(hold: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + 'static) -> Self {
        let stamps = [0; STAMPS];
        Self { file: None, bytes: 0, compact_bytes: 0, stamps, failed_at: None, hold: Box::new(hold) }
    }

    /// What a process before this one wrote, and the journal to go on with. Nothing where it can't be used.
    pub fn restore(
        file: OwnedFd,
        hold: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + 'static,
    ) -> (Self, Restored) {
        let mut journal = Self::new(hold);
        let file = File::from(file);
        match read(&file) {
            Ok(Whole { restored, bytes, compact_bytes }) => {
                (journal.bytes, journal.compact_bytes) = (bytes, compact_bytes);
                (journal.stamps, journal.file) = (restored.stamps, Some(file));
                (journal, restored)
            }
            Err(why) => {
                tracing::warn!("what was known last is not used: {why}");
                (journal, Restored::default())
            }
        }
    }

    /// Writes a batch down; `rows` are all that are known after it.
    pub fn write<'a, Rows: Iterator<Item = &'a Row>>(
        &mut self,
        batch: &[Change],
        rows: impl FnOnce() -> Rows,
    ) {
        if self.failed_at.is_some_and(|at| at.elapsed() < TRY_AGAIN_AFTER) {
            return;
        }
        let written = match &self.file {
            Some(_) if self.bytes < SMALLEST_REWRITE_BYTES.max(2 * self.compact_bytes) => self.append(batch),
            _ => self.rewrite(rows()),
        };
        match written {
            Ok(()) if self.failed_at.take().is_some() => {
                tracing::info!("what is known is kept for a restart again");
            }
            Ok(()) => {}
            Err(error) => {
                if self.failed_at.is_none() {
                    // It is only lost to a worker that starts again while the API server is away.
                    tracing::warn!(%error, "what is known can't be kept for a restart");
                }
                (self.file, self.failed_at) = (None, Some(Instant::now()));
            }
        }
    }

    /// Writes down times for the next process, one for each of a source's kinds.
    pub fn stamp(&mut self, stamps: impl Iterator<Item = u64>) {
        let before = self.stamps;
        self.stamps.iter_mut().zip(stamps).for_each(|(known, stamp)| *known = stamp);
        if let Some(file) = self.file.as_ref().filter(|_| self.stamps != before)
            && let Err(error) = file.write_all_at(&bytes_of(&self.stamps), STAMPS_AT)
        {
            tracing::debug!(%error, "the journal's header can't be written");
        }
    }

    /// All is well with what was written: the next start may be from it.
    pub fn well(&self) {
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&0u32.to_le_bytes(), STARTS_AT)
        {
            tracing::warn!(%error, "the journal's header can't be written");
        }
    }

    fn append(&mut self, batch: &[Change]) -> io::Result<()> {
        let mut records = Vec::new();
        for change in batch {
            record(change, &mut records)?;
        }
        self.push(&records)
    }

    fn rewrite<'a>(&mut self, rows: impl Iterator<Item = &'a Row>) -> io::Result<()> {
        let fresh = File::from(memfd_create("evenkeel-rows", MemfdFlags::CLOEXEC)?);
        let mut header = MAGIC.to_vec();
        header.extend(program()?);
        header.extend(0u32.to_le_bytes());
        header.extend(bytes_of(&self.stamps));
        fresh.write_all_at(&header, 0)?;
        (self.file, self.bytes) = (Some(fresh), HEADER_BYTES);
        let mut records = Vec::new();
        for row in rows {
            record(&Change::Set(row.clone()), &mut records)?;
            if records.len() as u64 > SMALLEST_REWRITE_BYTES {
                self.push(&records)?;
                records.clear();
            }
        }
        self.push(&records)?;
        self.compact_bytes = self.bytes;
        // Only now: the old one was good until here.
        match &self.file {
            Some(file) => (self.hold)(file.as_fd()),
            None => Ok(()),
        }
    }

    fn push(&mut self, records: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(records, self.bytes)?;
        self.bytes += records.len() as u64;
        Ok(())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn record(change: &Change, records: &mut Vec<u8>) -> io::Result<()> {
    let begin = records.len();
    records.extend([0; 4]);
    *records = postcard::to_extend(change, std::mem::take(records)).map_err(io::Error::other)?;
    let length = u32::try_from(records.len() - begin - 4).map_err(io::Error::other)?;
    records[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn bytes_of(stamps: &[u64; STAMPS]) -> Vec<u8> {
    stamps.iter().flat_map(|stamp| stamp.to_le_bytes()).collect()
}

/// A journal as it was read.
struct Whole {
    restored: Restored,
    /// The length of what is whole of it.
    bytes: u64,
    /// The length that it would have with each row once.
    compact_bytes: u64,
}

/// Reads a journal. Counts the start.
fn read(file: &File) -> Result<Whole, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
    file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
    let (header, mut records) = bytes.split_at_checked(HEADER_BYTES as usize).ok_or("it has no header")?;
    let (written_by, rest) = header.split_at(STARTS_AT as usize);
    let (starts, stamps) = rest.split_at((STAMPS_AT - STARTS_AT) as usize);
    let mut ours = MAGIC.to_vec();
    ours.extend(program().map_err(|error| error.to_string())?);
    if written_by != ours {
        return Err("another version of the program wrote it".into());
    }
    let starts = starts.try_into().map_or(MAX_STARTS, u32::from_le_bytes);
    if starts >= MAX_STARTS {
        return Err(format!("{starts} starts from it have failed"));
    }
    file.write_all_at(&(starts + 1).to_le_bytes(), STARTS_AT).map_err(|error| error.to_string())?;

    // Each row with the length of its last record.
    let mut rows: HashMap<RowKey, (Row, u64)> = HashMap::new();
    let (mut names, mut hints) = (Interner::default(), HashSet::new());
    while let Some((change, rest)) = next_record(records) {
        let length = (records.len() - rest.len()) as u64;
        records = rest;
        match change {
            Change::Set(row) => drop(rows.insert(row.key(), (shared(row, &mut names, &mut hints), length))),
            Change::Remove(key) => drop(rows.remove(&key)),
        }
    }
    let mut restored = Restored::default();
    for (known, stamp) in restored.stamps.iter_mut().zip(stamps.as_chunks().0) {
        *known = u64::from_le_bytes(*stamp);
    }
    let compact_bytes = HEADER_BYTES + rows.values().map(|(_, length)| length).sum::<u64>();
    restored.rows = rows.into_values().map(|(row, _)| row).collect();
    Ok(Whole { restored, bytes: length - records.len() as u64, compact_bytes })
}

fn next_record(records: &[u8]) -> Option<(Change, &[u8])> {
    let (length, rest) = records.split_first_chunk()?;
    let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((postcard::from_bytes(record).ok()?, rest))
}

/// The row, with its strings held once that many have in common. Slices are what there is much of.
fn shared(row: Row, names: &mut Interner, known_hints: &mut HashSet<Arc<Hints>>) -> Row {
    let Row::Slice(mut row) = row else { return row };
    let SliceRow { name, service, ports, endpoints, weight: _ } = Arc::make_mut(&mut row);
    let mut share = |text: &mut Arc<str>| *text = names.intern(text);
    share(&mut name.namespace);
    share(service);
    ports.iter_mut().for_each(|port| share(&mut port.name));
    for endpoint in endpoints {
        endpoint.zone.as_mut().map(&mut share);
        endpoint.node.as_mut().map(&mut share);
        if let Some(hints) = &mut endpoint.hints {
            match known_hints.get(hints) {
                Some(known) => *hints = known.clone(),
                None => {
                    let own = Arc::make_mut(hints);
                    own.zones.iter_mut().chain(&mut own.nodes).for_each(&mut share);
                    known_hints.insert(hints.clone());
                }
            }
        }
    }
    Row::Slice(row)
}

/// Which program this is. Records have no names in them: only the one that wrote them can read them.
fn program() -> io::Result<[u8; 16]> {
    let file = std::fs::metadata("/proc/self/exe")?;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&file.size().to_le_bytes());
    id[8..].copy_from_slice(&(file.mtime().wrapping_mul(1_000_000_000) + file.mtime_nsec()).to_le_bytes());
    Ok(id)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
