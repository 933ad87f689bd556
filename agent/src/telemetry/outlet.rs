//! The way from the worker threads to whoever writes down what they tell: bounded, and never waited for. What has no room is dropped, and
//! counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// How long who takes things out pauses between two batches, if there is no hurry: what is told meanwhile wakes nobody, so that worker threads
/// make a system call for it fifty times a second at most.
pub const PAUSE: Duration = Duration::from_millis(20);

/// An outlet with room for so many things, and the inlet that they come out of.
pub fn outlet<T>(room: usize) -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::channel(room);
    let dropped = DropCount::default();
    (Outlet { sender, dropped: dropped.clone() }, Inlet { receiver, dropped })
}

/// Where things are told. Clones lead to the same [`Inlet`].
#[derive(Debug)]
pub struct Outlet<T> {
    sender: mpsc::Sender<T>,
    dropped: DropCount,
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), dropped: self.dropped.clone() }
    }
}

impl<T> Outlet<T> {
    /// Tells what `make` makes, which is not asked where there is no room. Waits for nobody. Whether it will be heard.
    #[inline]
    pub fn tell(&self, make: impl FnOnce() -> T) -> bool {
        match self.sender.try_reserve() {
            Ok(room) => {
                room.send(make());
                true
            }
            // Full, or nobody listens any more.
            Err(_) => {
                self.dropped.add(1);
                false
            }
        }
    }
}

/// Where what was told comes out. Once it is dropped, what is still in it counts as dropped as well: what was told is what was taken out and
/// what was dropped.
#[derive(Debug)]
pub struct Inlet<T> {
    receiver: mpsc::Receiver<T>,
    dropped: DropCount,
}

impl<T> Inlet<T> {
    /// Waits for what is told, and puts it behind what is in `batch`, `most` things at most. How many; 0 once it is [closed](Self::close), or
    /// all outlets have gone, and it is empty. Cancel-safe.
    pub async fn next(&mut self, batch: &mut Vec<T>, most: usize) -> usize {
        self.receiver.recv_many(batch, most).await
    }

    /// As [`Self::next`], for who is polled.
    pub fn poll_next(&mut self, context: &mut Context<'_>, batch: &mut Vec<T>, most: usize) -> Poll<usize> {
        Poll::Ready(ready!(self.receiver.poll_recv_many(context, batch, most)))
    }

    /// Takes nothing in any more. What is in it already can still be taken out.
    pub fn close(&mut self) {
        self.receiver.close();
    }

    /// What had no room.
    pub fn dropped(&self) -> DropCount {
        self.dropped.clone()
    }
}

impl<T> Drop for Inlet<T> {
    fn drop(&mut self) {
        self.receiver.close();
        loop {
            match self.receiver.try_recv() {
                Ok(_) => self.dropped.add(1),
                // Somebody is just telling something.
                Err(TryRecvError::Empty) => std::thread::yield_now(),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// How many things had no room.
#[derive(Debug, Clone, Default)]
pub struct DropCount(Arc<AtomicU64>);

impl DropCount {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// How many, so far.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_no_room_is_dropped_counted_and_not_even_made() {
        let (outlet, mut inlet) = outlet(3);
        let mut made = 0;
        for number in 0..10 {
            let is_heard = outlet.tell(|| {
                made += 1;
                number
            });
            assert_eq!(is_heard, number < 3);
        }
        assert_eq!((made, inlet.dropped().count()), (3, 7));
        let mut batch = Vec::new();
        assert_eq!(inlet.next(&mut batch, 2).await, 2);
        assert!(outlet.tell(|| 10));
        assert_eq!(inlet.next(&mut batch, 9).await, 2);
        assert_eq!(batch, [0, 1, 2, 10]);
    }

    #[tokio::test]
    async fn what_was_told_before_the_close_comes_out_and_nothing_after_it() {
        let (outlet, mut inlet) = outlet(8);
        assert!(outlet.tell(|| 1) && outlet.clone().tell(|| 2));
        inlet.close();
        assert!(!outlet.tell(|| 3));
        let mut batch = Vec::new();
        assert_eq!(inlet.next(&mut batch, 8).await, 2);
        assert_eq!(inlet.next(&mut batch, 8).await, 0);
        assert_eq!((batch, inlet.dropped().count()), (vec![1, 2], 1));
    }

    #[test]
    fn of_many_threads_nothing_is_lost_without_being_counted() {
        const TOLD: u64 = 20_000;
        let (outlet, mut inlet) = outlet(64);
        let dropped = inlet.dropped();
        let taken = std::thread::scope(|scope| {
            for _ in 0..4 {
                let outlet = outlet.clone();
                scope.spawn(move || {
                    for number in 0..TOLD {
                        outlet.tell(|| number);
                    }
                });
            }
            drop(outlet);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (mut taken, mut batch) = (0, Vec::new());
                // The rest is left to the drop.
                while taken < TOLD && inlet.next(&mut batch, 10).await > 0 {
                    taken += batch.drain(..).count() as u64;
                }
                drop(inlet);
                taken
            })
        });
        assert_eq!(taken + dropped.count(), 4 * TOLD);
    }
}
