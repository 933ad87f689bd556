//! The rows that were known last, in a file in memory that the keeper holds: a worker process that starts again serves from
//! them at once, be the API server there or not.
//!
//! A header, then one record a change: its length in four bytes, and the change. Each change is written before it is
//! handed out, so what the kernel's maps hold is never ahead of the journal; a record that a death cut short is left out.
//! When most records are of rows that have changed since, the rows are written anew into another file.

use super::intern::Interner;
use super::rows::{Change, Row, RowKey, SliceRow};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

/// Begins the header, with the version of its form.
const MAGIC: [u8; 8] = *b"EVKNROW1";

/// The header: the magic, which program wrote it (size and time of its file), and starts since all was well.
const HEADER_BYTES: u64 = 28;
const STARTS_AT: u64 = 24;

/// A worker that has died so many times in a row after it started from the journal starts without it: what kills it may be in
/// there.
const MAX_STARTS: u32 = 3;

/// The journal is not written anew below this size.
const SMALLEST_REWRITE_BYTES: u64 = 1 << 20;

/// Hands a new file to whoever holds it.
type Hold = Box<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send>;

/// The rows that were known last, kept outside of this process.
pub struct Journal {
    file: Option<File>,
    bytes: u64,
    /// How large it was when it held each row once.
    compact_bytes: u64,
    hold: Hold,
}

impl Journal {
    /// A new one.
    pub fn new(hold: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + 'static) -> Self {
        Self { file: None, bytes: 0, compact_bytes: 0, hold: Box::new(hold) }
    }

    /// What a process before this one wrote, and the journal to go on with. No rows where it can't be used.
    pub fn restore(
        file: OwnedFd,
        hold: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + 'static,
    ) -> (Self, Vec<Row>) {
        let mut journal = Self::new(hold);
        let file = File::from(file);
        match read(&file) {
            Ok((rows, bytes)) => {
                (journal.bytes, journal.compact_bytes, journal.file) = (bytes, bytes, Some(file));
                (journal, rows)
            }
            Err(why) => {
                tracing::warn!("what was known last is not used: {why}");
                (journal, Vec::new())
            }
        }
    }

    /// Writes a batch down; `rows` are all that are known after it.
    pub fn write<'a, Rows: Iterator<Item = &'a Row>>(
        &mut self,
        batch: &[Change],
        rows: impl FnOnce() -> Rows,
    ) {
        let written = match &self.file {
            Some(_) if self.bytes < SMALLEST_REWRITE_BYTES.max(2 * self.compact_bytes) => self.append(batch),
            _ => self.rewrite(rows()),
        };
        if let Err(error) = written {
            // What is known is only lost to a worker that starts again while the API server is away.
            tracing::warn!(%error, "what is known can't be kept for a restart");
            self.file = None;
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

/// The rows of a journal, and the length of what is whole of it. Counts the start.
fn read(file: &File) -> Result<(Vec<Row>, u64), String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
    file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
    let (header, mut records) = bytes.split_at_checked(HEADER_BYTES as usize).ok_or("it has no header")?;
    let (written_by, starts) = header.split_at(STARTS_AT as usize);
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

    let mut rows: HashMap<RowKey, Row> = HashMap::new();
    let mut names = Interner::default();
    while let Some((change, rest)) = next_record(records) {
        records = rest;
        match change {
            Change::Set(row) => drop(rows.insert(row.key(), shared(row, &mut names))),
            Change::Remove(key) => drop(rows.remove(&key)),
        }
    }
    Ok((rows.into_values().collect(), length - records.len() as u64))
}

fn next_record(records: &[u8]) -> Option<(Change, &[u8])> {
    let (length, rest) = records.split_first_chunk()?;
    let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((postcard::from_bytes(record).ok()?, rest))
}

/// The row, with its strings held once that many have in common. Slices are what there is much of.
fn shared(row: Row, names: &mut Interner) -> Row {
    let Row::Slice(mut row) = row else { return row };
    let SliceRow { name, service, ports, endpoints, weight: _ } = Arc::make_mut(&mut row);
    let mut share = |text: &mut Arc<str>| *text = names.intern(text);
    share(&mut name.namespace);
    share(service);
    ports.iter_mut().for_each(|port| share(&mut port.name));
    for endpoint in endpoints {
        endpoint.zone.as_mut().map(&mut share);
        endpoint.node.as_mut().map(&mut share);
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
mod tests {
    use super::*;
    use crate::sources::rows::NodeRow;
    use std::sync::Mutex;

    type Held = Arc<Mutex<Option<OwnedFd>>>;

    fn holder() -> (Held, impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Clone + 'static) {
        let held = Held::default();
        let to = held.clone();
        (held, move |file: BorrowedFd<'_>| {
            *to.lock().unwrap() = Some(file.try_clone_to_owned()?);
            Ok(())
        })
    }

    fn held(held: &Held) -> OwnedFd {
        held.lock().unwrap().as_ref().unwrap().try_clone().unwrap()
    }

    fn row(number: usize, zone: &str) -> Row {
        Row::Node(Arc::new(NodeRow { name: format!("node-{number}").into(), zone: Some(zone.into()) }))
    }

    fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
        rows.sort_by_key(Row::key);
        rows
    }

    #[test]
    fn what_was_written_is_there_for_the_next_process() {
        let (file, hold) = holder();
        let mut journal = Journal::new(hold.clone());
        let first = [row(1, "a"), row(2, "a")];
        journal.write(&first.clone().map(Change::Set), || first.iter());
        let batch = [Change::Set(row(1, "b")), Change::Remove(row(2, "a").key()), Change::Set(row(3, "c"))];
        journal.write(&batch, || [].iter());
        drop(journal);
        let (mut journal, rows) = Journal::restore(held(&file), hold.clone());
        assert_eq!(sorted(rows), [row(1, "b"), row(3, "c")]);
        journal.write(&[Change::Set(row(4, "d"))], || [].iter());
        let (_, rows) = Journal::restore(held(&file), hold);
        assert_eq!(sorted(rows), [row(1, "b"), row(3, "c"), row(4, "d")]);
    }

    #[test]
    fn a_record_that_was_cut_short_is_left_out_and_written_over() {
        let (file, hold) = holder();
        let mut journal = Journal::new(hold.clone());
        journal.write(&[], || [].iter());
        journal.write(&[Change::Set(row(1, "a")), Change::Set(row(2, "a"))], || [].iter());
        let whole = File::from(held(&file)).metadata().unwrap().len();
        File::from(held(&file)).set_len(whole - 1).unwrap();
        let (mut journal, rows) = Journal::restore(held(&file), hold.clone());
        assert_eq!(rows, [row(1, "a")]);
        journal.write(&[Change::Set(row(3, "a"))], || [].iter());
        assert_eq!(sorted(Journal::restore(held(&file), hold).1), [row(1, "a"), row(3, "a")]);
    }

    #[test]
    fn it_does_not_grow_with_changes_but_with_rows() {
        let (file, hold) = holder();
        let mut journal = Journal::new(hold.clone());
        let zone = "z".repeat(1000);
        let last = [row(1, &zone)];
        for _ in 0..10_000 {
            journal.write(&last.clone().map(Change::Set), || last.iter());
        }
        assert!(journal.bytes < 2 * SMALLEST_REWRITE_BYTES, "{}", journal.bytes);
        assert_eq!(Journal::restore(held(&file), hold).1, last);
    }

    #[test]
    fn what_kills_each_worker_that_starts_from_it_is_left_alone() {
        let (file, hold) = holder();
        let mut journal = Journal::new(hold.clone());
        journal.write(&[], || [row(1, "a")].into_iter().collect::<Vec<_>>().leak().iter());
        for _ in 0..MAX_STARTS - 1 {
            assert_eq!(Journal::restore(held(&file), hold.clone()).1.len(), 1);
        }
        Journal::restore(held(&file), hold.clone()).0.well();
        for _ in 0..MAX_STARTS {
            assert_eq!(Journal::restore(held(&file), hold.clone()).1.len(), 1);
        }
        assert!(Journal::restore(held(&file), hold).1.is_empty());
    }

    #[test]
    fn what_another_program_wrote_and_what_is_no_journal_is_not_read() {
        let (file, hold) = holder();
        let mut journal = Journal::new(hold.clone());
        journal.write(&[Change::Set(row(1, "a"))], || [].iter());
        File::from(held(&file)).write_all_at(&[0xff; 8], 8).unwrap();
        assert!(Journal::restore(held(&file), hold.clone()).1.is_empty());
        let empty = memfd_create("empty", MemfdFlags::CLOEXEC).unwrap();
        assert!(Journal::restore(empty, hold).1.is_empty());
    }
}
