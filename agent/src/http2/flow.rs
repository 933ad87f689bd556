//! Flow control's credit (RFC 9113 §5.2), the same for streams and connections.

/// The window may not pass 2^31 - 1 (RFC 9113 §6.9.1).
pub(super) const MAX_WINDOW: u32 = 0x7fff_ffff;
/// Before any SETTINGS or WINDOW_UPDATE (RFC 9113 §6.9.2).
pub(super) const INITIAL_WINDOW: u32 = 65_535;

/// The window would be larger than the protocol allows, or more came than it allowed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct WindowError;

/// What we may still send. A change of SETTINGS can make it negative (RFC 9113 §6.9.2).
#[derive(Copy, Clone, Debug)]
pub(super) struct SendWindow(i32);

impl SendWindow {
    pub(super) fn new(bytes: u32) -> Self {
        Self(bytes.min(MAX_WINDOW) as i32)
    }

    pub(super) fn available(self) -> usize {
        self.0.max(0) as usize
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i32;
    }

    /// A WINDOW_UPDATE's increment, or the difference between two initial windows.
    pub(super) fn shift(&mut self, by: i64) -> Result<(), WindowError> {
        self.0 = i32::try_from(i64::from(self.0) + by).map_err(|_| WindowError)?;
        Ok(())
    }
}

/// What the peer may still send, and what we owe it.
#[derive(Copy, Clone, Debug)]
pub(super) struct ReceiveWindow {
    /// What the peer may send before it hears from us.
    left: i32,
    /// Consumed, but not yet told.
    owed: u32,
    /// `left` when nothing is on the way or owed.
    size: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> Self {
        let size = size.min(MAX_WINDOW);
        Self { left: size as i32, owed: 0, size }
    }

    /// Bytes came. `slack` is what the peer may send on top because it has not seen our SETTINGS yet.
    pub(super) fn receive(&mut self, bytes: usize, slack: u32) -> Result<(), WindowError> {
        if bytes as i64 > i64::from(self.left) + i64::from(slack) {
            return Err(WindowError);
        }
        self.left -= bytes as i32;
        Ok(())
    }

    /// Bytes were consumed: the increment to announce, if it is time. Half a window is told at once, so that a busy
    /// sender never waits and a WINDOW_UPDATE is rare. If by then the consumer has little left to do, it keeps up, and
    /// the window doubles, to `max` at most. One that is larger than `max` shrinks to it: credit is kept back.
    pub(super) fn consume(&mut self, bytes: u32, max: u32) -> Option<u32> {
        self.owed = self.owed.saturating_add(bytes).min(self.received());
        if self.owed == 0 || self.owed < self.size / 2 {
            return None;
        }
        let max = max.min(MAX_WINDOW);
        if max < self.size {
            let kept_back = self.owed.min(self.size - max);
            self.size -= kept_back;
            self.owed -= kept_back;
            if self.owed == 0 {
                return None;
            }
        }
        let unread = self.received() - self.owed;
        let growth = if unread <= self.size / 4 { max.saturating_sub(self.size).min(self.size) } else { 0 };
        let increment = self.owed + growth;
        self.size += growth;
        self.left = (i64::from(self.left) + i64::from(increment)) as i32;
        self.owed = 0;
        Some(increment)
    }

    /// Bytes that the peer may still send.
    pub(super) fn left(&self) -> u32 {
        self.left.max(0) as u32
    }

    /// As [`Self::consume`], of a window that stays as it is.
    pub(super) fn consume_all(&mut self, bytes: u32) -> Option<u32> {
        self.consume(bytes, self.size)
    }

    /// Bytes that came and are not told yet.
    fn received(&self) -> u32 {
        (i64::from(self.size) - i64::from(self.left)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_told_in_halves_of_the_window() {
        let mut window = ReceiveWindow::new(100);
        window.receive(100, 0).expect("within the window");
        assert_eq!(window.receive(1, 0), Err(WindowError));
        assert_eq!(window.consume(49, 100), None);
        assert_eq!(window.consume(1, 100), Some(50));
        window.receive(50, 0).expect("the credit that was told");
        assert_eq!(window.receive(1, 0), Err(WindowError));
    }

    #[test]
    fn a_window_doubles_while_its_consumer_keeps_up_and_stops_at_the_most() {
        let mut window = ReceiveWindow::new(100);
        let mut told = Vec::new();
        for _ in 0..20 {
            window.receive(25, 0).expect("within the window");
            told.extend(window.consume(25, 300));
        }
        assert_eq!(told[..2], [150, 200], "50 owed + 100, then 100 owed + 100");
        assert!(told[2..].iter().all(|increment| *increment == 150), "half of 300: {told:?}");
    }

    #[test]
    fn a_window_does_not_grow_for_a_consumer_that_lags() {
        let mut window = ReceiveWindow::new(100);
        window.receive(100, 0).expect("within the window");
        assert_eq!(window.consume(50, 400), Some(50));
    }

    #[test]
    fn a_window_that_is_larger_than_it_may_be_shrinks_by_what_is_consumed_and_never_below() {
        let mut window = ReceiveWindow::new(100);
        for _ in 0..20 {
            window.receive(25, 0).expect("within the window");
            window.consume(25, 400);
        }
        let mut told = 0;
        // What is told is never more than what keeps the sender within the new most.
        for _ in 0..60 {
            if window.receive(25, 0).is_ok() {
                told += window.consume(25, 100).unwrap_or(0);
            }
        }
        assert!(told > 0, "it still goes on");
        assert_eq!(window.receive(101, 0), Err(WindowError));
    }

    #[test]
    fn more_credit_than_came_is_not_given_back() {
        let mut window = ReceiveWindow::new(100);
        window.receive(60, 0).expect("within the window");
        assert_eq!(window.consume(1_000, 100), Some(60));
        assert_eq!(window.consume(1_000, 100), None);
    }

    #[test]
    fn a_send_window_may_be_negative_but_never_above_the_most() {
        let mut window = SendWindow::new(10);
        window.take(10);
        window.shift(-5).expect("negative is fine");
        assert_eq!(window.available(), 0);
        window.shift(6).expect("in range");
        assert_eq!(window.available(), 1);
        assert_eq!(window.shift(i64::from(MAX_WINDOW)), Err(WindowError));
    }
}
