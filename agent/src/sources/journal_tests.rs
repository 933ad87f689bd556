//! What a process leaves for the next.

use super::*;
use crate::sources::rows::NodeRow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

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
    let (mut journal, before) = Journal::restore(held(&file), hold.clone());
    assert_eq!(sorted(before.rows), [row(1, "b"), row(3, "c")]);
    journal.write(&[Change::Set(row(4, "d"))], || [].iter());
    let (_, before) = Journal::restore(held(&file), hold);
    assert_eq!(sorted(before.rows), [row(1, "b"), row(3, "c"), row(4, "d")]);
}

#[test]
fn a_record_that_was_cut_short_is_left_out_and_written_over() {
    let (file, hold) = holder();
    let mut journal = Journal::new(hold.clone());
    journal.write(&[], || [].iter());
    journal.write(&[Change::Set(row(1, "a")), Change::Set(row(2, "a"))], || [].iter());
    let whole = File::from(held(&file)).metadata().unwrap().len();
    File::from(held(&file)).set_len(whole - 1).unwrap();
    let (mut journal, before) = Journal::restore(held(&file), hold.clone());
    assert_eq!(before.rows, [row(1, "a")]);
    journal.write(&[Change::Set(row(3, "a"))], || [].iter());
    assert_eq!(sorted(Journal::restore(held(&file), hold).1.rows), [row(1, "a"), row(3, "a")]);
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
    // Nor does it with restarts.
    for _ in 0..10 {
        let (mut journal, before) = Journal::restore(held(&file), hold.clone());
        journal.well();
        assert_eq!(before.rows, last);
        assert!(journal.compact_bytes < 2000, "{}", journal.compact_bytes);
        for _ in 0..1_000 {
            journal.write(&last.clone().map(Change::Set), || last.iter());
        }
        assert!(journal.bytes < 2 * SMALLEST_REWRITE_BYTES, "{}", journal.bytes);
    }
}

#[test]
fn the_times_are_there_for_the_next_process_also_after_a_rewrite() {
    let (file, hold) = holder();
    let mut journal = Journal::new(hold.clone());
    journal.stamp([7, 8].into_iter());
    journal.write(&[], || [].iter());
    assert_eq!(Journal::restore(held(&file), hold.clone()).1.stamps[..3], [7, 8, 0]);
    journal.stamp([9].into_iter());
    assert_eq!(Journal::restore(held(&file), hold).1.stamps[..3], [9, 8, 0]);
}

#[test]
fn what_can_not_be_kept_is_tried_again_after_a_while_and_not_with_each_batch() {
    let (file, hold) = holder();
    let (tries, refuses) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
    let (count, refused) = (tries.clone(), refuses.clone());
    let mut journal = Journal::new(move |file: BorrowedFd<'_>| {
        count.fetch_add(1, Relaxed);
        if refused.load(Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { hold(file) }
    });
    let rows = [row(1, "a")];
    for _ in 0..100 {
        journal.write(&rows.clone().map(Change::Set), || rows.iter());
    }
    assert_eq!(tries.load(Relaxed), 1);
    refuses.store(false, Relaxed);
    journal.failed_at = Instant::now().checked_sub(TRY_AGAIN_AFTER);
    journal.write(&[], || rows.iter());
    journal.write(&[Change::Set(row(2, "a"))], || [].iter());
    assert_eq!((tries.load(Relaxed), journal.failed_at), (2, None));
    let (_, before) = Journal::restore(held(&file), |_| Ok(()));
    assert_eq!(sorted(before.rows), [row(1, "a"), row(2, "a")]);
}

#[test]
fn what_kills_each_worker_that_starts_from_it_is_left_alone() {
    let (file, hold) = holder();
    let mut journal = Journal::new(hold.clone());
    journal.write(&[], || [row(1, "a")].into_iter().collect::<Vec<_>>().leak().iter());
    for _ in 0..MAX_STARTS - 1 {
        assert_eq!(Journal::restore(held(&file), hold.clone()).1.rows.len(), 1);
    }
    Journal::restore(held(&file), hold.clone()).0.well();
    for _ in 0..MAX_STARTS {
        assert_eq!(Journal::restore(held(&file), hold.clone()).1.rows.len(), 1);
    }
    assert!(Journal::restore(held(&file), hold).1.rows.is_empty());
}

#[test]
fn what_another_program_wrote_and_what_is_no_journal_is_not_read() {
    let (file, hold) = holder();
    let mut journal = Journal::new(hold.clone());
    journal.write(&[Change::Set(row(1, "a"))], || [].iter());
    File::from(held(&file)).write_all_at(&[0xff; 8], 8).unwrap();
    assert!(Journal::restore(held(&file), hold.clone()).1.rows.is_empty());
    let empty = memfd_create("empty", MemfdFlags::CLOEXEC).unwrap();
    assert!(Journal::restore(empty, hold).1.rows.is_empty());
}
