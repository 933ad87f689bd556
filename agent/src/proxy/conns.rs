//! All connections of an engine: what each is, what it is charged, and whether its socket takes what there is for it.

use slab::Slab;

/// A connection, by the number that engine and driver share. Used again after [`super::Engine::closed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(super) u32);

impl ConnId {
    /// A small integer: an index into the driver's own table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A socket that has taken nothing for so long is not read: a client is on this node, and servers acknowledge faster than that.
/// Until then it may be one that is only busy, of which a turn's write takes a part.
const STUCK_NS: u64 = 50_000_000;

/// And neither is one whose kernel buffers hold the same for so long: they are asked once a second.
const KERNEL_STUCK_NS: u64 = 2_000_000_000;
/// As much of it at least: less is what a peer may leave there for a reason, and not worth a connection.
const KERNEL_STUCK_BYTES: u32 = 16 << 10;

/// What a connection is to the engine: the index into its role's slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Sniffing(u32),
    Downstream(u32),
    Upstream(u32),
    TunnelClient(u32),
    TunnelServer(u32),
    /// Waits for the driver to have closed the socket.
    Closed,
}

#[derive(Debug)]
struct Conn {
    role: Role,
    touched: bool,
    paused: bool,
    /// Whose memory it holds, and how much.
    budget: u32,
    charged: u64,
    /// Of that, in the kernel's buffers, and when that was another amount.
    kernel_bytes: u32,
    kernel_since_ns: u64,
    opened_ns: u64,
    /// Since when there has always been output that the socket has not taken; 0: there is none.
    output_since_ns: u64,
    /// When it last took some, or some came where none had been.
    moved_ns: u64,
}

/// What is known of every connection, whatever its role.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnFacts {
    /// When it was accepted, or begun to be opened.
    pub(super) opened_ns: u64,
    /// What its source is charged for it, in bytes.
    pub(super) charged: u64,
    /// When its socket last took some of the output, or some came where none had been.
    pub(super) moved_ns: u64,
}

/// All connections, and which of them something happened to.
#[derive(Debug, Default)]
pub(super) struct Conns {
    slots: Slab<Conn>,
    touched: Vec<ConnId>,
}

impl Conns {
    /// A connection that is charged to a budget.
    pub(super) fn insert(&mut self, role: Role, budget: u32, now_ns: u64) -> ConnId {
        let conn = Conn {
            role,
            touched: false,
            paused: false,
            budget,
            charged: 0,
            kernel_bytes: 0,
            kernel_since_ns: 0,
            opened_ns: now_ns,
            output_since_ns: 0,
            moved_ns: 0,
        };
        ConnId(self.slots.insert(conn) as u32)
    }

    /// The driver has closed it: its number is free.
    pub(super) fn remove(&mut self, conn: ConnId) {
        self.slots.try_remove(conn.index());
    }

    pub(super) fn role(&self, conn: ConnId) -> Role {
        self.slots.get(conn.index()).map_or(Role::Closed, |conn| conn.role)
    }

    pub(super) fn set_role(&mut self, conn: ConnId, role: Role) {
        self.slots[conn.index()].role = role;
    }

    /// Has the connection looked at when the turn's inputs are through.
    pub(super) fn touch(&mut self, conn: ConnId) {
        let slot = &mut self.slots[conn.index()];
        if !slot.touched {
            slot.touched = true;
            self.touched.push(conn);
        }
    }

    /// The next one that something happened to; those that are gone have nothing to bring to an end.
    pub(super) fn next_touched(&mut self) -> Option<(ConnId, Role)> {
        while let Some(conn) = self.touched.pop() {
            if let Some(slot) = self.slots.get_mut(conn.index()) {
                slot.touched = false;
                return Some((conn, slot.role));
            }
        }
        None
    }

    /// Whose memory it holds; `None` if it is closed.
    pub(super) fn budget_of_open(&self, conn: ConnId) -> Option<u32> {
        let slot = self.slots.get(conn.index())?;
        (slot.role != Role::Closed).then_some(slot.budget)
    }

    pub(super) fn budget(&self, conn: ConnId) -> u32 {
        self.slots[conn.index()].budget
    }

    pub(super) fn kernel_bytes(&self, conn: ConnId) -> u32 {
        self.slots[conn.index()].kernel_bytes
    }

    /// Whether that is news.
    pub(super) fn set_kernel_bytes(&mut self, conn: ConnId, bytes: u32, now_ns: u64) -> bool {
        let Some(slot) = self.slots.get_mut(conn.index()) else { return false };
        let is_news = std::mem::replace(&mut slot.kernel_bytes, bytes) != bytes;
        if is_news {
            slot.kernel_since_ns = now_ns;
        }
        is_news
    }

    pub(super) fn charged(&self, conn: ConnId) -> u64 {
        self.slots[conn.index()].charged
    }

    /// Notes what the connection is charged; its budget, and what it was charged before.
    pub(super) fn set_charged(&mut self, conn: ConnId, bytes: u64) -> (u32, u64) {
        let slot = &mut self.slots[conn.index()];
        (slot.budget, std::mem::replace(&mut slot.charged, bytes))
    }

    /// Notes whether the connection has output.
    pub(super) fn note_output(&mut self, conn: ConnId, has_output: bool, now_ns: u64) {
        let slot = &mut self.slots[conn.index()];
        if !has_output {
            slot.output_since_ns = 0;
        } else if slot.output_since_ns == 0 {
            (slot.output_since_ns, slot.moved_ns) = (now_ns, now_ns);
        }
    }

    /// Notes that the socket has taken some of the output, and whether any is left.
    pub(super) fn note_sent(&mut self, conn: ConnId, has_output: bool, now_ns: u64) {
        self.note_output(conn, has_output, now_ns);
        self.slots[conn.index()].moved_ns = now_ns;
    }

    /// Whether the socket has not taken anything for so long that nobody seems to read it.
    pub(super) fn is_stuck(&self, conn: ConnId, now_ns: u64) -> bool {
        let slot = &self.slots[conn.index()];
        slot.output_since_ns > 0 && now_ns - slot.moved_ns >= STUCK_NS
    }

    /// Whether the kernel has held the same of it for so long that nobody seems to read it.
    pub(super) fn is_stuck_in_kernel(&self, conn: ConnId, now_ns: u64) -> bool {
        let slot = &self.slots[conn.index()];
        slot.kernel_bytes >= KERNEL_STUCK_BYTES && now_ns - slot.kernel_since_ns >= KERNEL_STUCK_NS
    }

    /// Whether there has been output all the time for at least so long; for 1 ns: since before this turn.
    pub(super) fn has_waited(&self, conn: ConnId, now_ns: u64, for_ns: u64) -> bool {
        let since = self.slots[conn.index()].output_since_ns;
        since > 0 && now_ns - since >= for_ns
    }

    /// Lets go of the memory of those that are gone.
    pub(super) fn trim(&mut self) {
        self.slots.shrink_to_fit();
        self.touched.shrink_to_fit();
    }

    /// Above all connections' numbers.
    pub(super) fn bound(&self) -> usize {
        self.slots.capacity()
    }

    /// All connections, in no order.
    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.slots.iter().map(|(index, _)| ConnId(index as u32))
    }

    pub(super) fn facts(&self, conn: ConnId) -> ConnFacts {
        let Conn { opened_ns, charged, moved_ns, .. } = self.slots[conn.index()];
        ConnFacts { opened_ns, charged, moved_ns }
    }

    /// All connections with their budgets.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (ConnId, u32)> {
        self.slots.iter().map(|(index, conn)| (ConnId(index as u32), conn.budget))
    }

    pub(super) fn is_paused(&self, conn: ConnId) -> bool {
        self.slots[conn.index()].paused
    }

    /// Whether the driver is to read it.
    pub(super) fn reads(&self, conn: ConnId) -> bool {
        self.slots.get(conn.index()).is_some_and(|conn| !conn.paused)
    }

    /// Says whether the driver shall read; true if it has to be told that it may again.
    pub(super) fn set_paused(&mut self, conn: ConnId, paused: bool) -> bool {
        std::mem::replace(&mut self.slots[conn.index()].paused, paused) && !paused
    }
}
