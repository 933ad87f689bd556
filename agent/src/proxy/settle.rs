//! A turn's end: what its inputs touched is brought up to date, and what there is to write goes to the driver.

use super::conns::{ConnId, Role};
use super::counters::Counters;
use super::engine::{Action, Engine};

impl Engine {
    /// Brings everything that this turn's inputs touched to its end, and names the connections that have output.
    pub fn settle(&mut self, flush: &mut Vec<ConnId>) {
        self.settle_touched(flush);
        if self.make_room_where_none_is() {
            self.settle_touched(flush);
        }
        self.budgets.publish();
    }

    fn settle_touched(&mut self, flush: &mut Vec<ConnId>) {
        loop {
            while let Some(pool) = self.pools_to_serve.pop() {
                self.serve_waiting(pool);
            }
            let Some((conn, role)) = self.conns.next_touched() else { break };
            match role {
                Role::Downstream(downstream) => self.settle_downstream(downstream),
                Role::Upstream(upstream) => self.settle_upstream(upstream),
                Role::TunnelClient(tunnel) | Role::TunnelServer(tunnel) => self.settle_tunnel(tunnel),
                Role::Sniffing(_) | Role::Closed => {}
            }
            self.charge(conn);
            let has_output = !self.output(conn).is_empty();
            self.conns.note_output(conn, has_output, self.now_ns);
            if has_output {
                flush.push(conn);
            }
        }
    }

    /// What the driver has to do, in this order.
    pub fn take_actions(&mut self, into: &mut Vec<Action>) {
        into.append(&mut self.actions);
    }

    /// Whether the driver shall read the connection. When this turns true again, [`Action::Resume`] says so.
    pub fn reads(&self, conn: ConnId) -> bool {
        self.conns.reads(conn)
    }

    /// What is to be written next.
    pub fn output(&self, conn: ConnId) -> &[u8] {
        match self.conns.role(conn) {
            Role::Downstream(downstream) => self.downstreams[downstream as usize].http2.output(),
            Role::Upstream(upstream) => self.upstreams[upstream as usize].output(),
            Role::TunnelClient(tunnel) => self.tunnels[tunnel as usize].output(true),
            Role::TunnelServer(tunnel) => self.tunnels[tunnel as usize].output(false),
            Role::Sniffing(_) | Role::Closed => &[],
        }
    }

    /// So many bytes of [`Self::output`] were written.
    pub fn sent(&mut self, conn: ConnId, bytes: usize) {
        match self.conns.role(conn) {
            Role::Downstream(downstream) => {
                let downstream = &mut self.downstreams[downstream as usize];
                downstream.http2.sent(bytes);
                if downstream.wants_settling() || self.conns.is_paused(conn) {
                    self.conns.touch(conn);
                }
            }
            Role::Upstream(upstream) => {
                let upstream = &mut self.upstreams[upstream as usize];
                upstream.http2.sent(bytes);
                upstream.sent_total += bytes as u64;
                if upstream.wants_settling() || self.conns.is_paused(conn) {
                    self.conns.touch(conn);
                }
                // Calls may have waited for this.
                if !self.pools[upstream.pool as usize].waiting.is_empty() {
                    self.pools_to_serve.push(upstream.pool);
                }
            }
            Role::TunnelClient(tunnel) => self.tunnel_sent(tunnel, true, bytes),
            Role::TunnelServer(tunnel) => self.tunnel_sent(tunnel, false, bytes),
            Role::Sniffing(_) | Role::Closed => return,
        }
        self.charge(conn);
        let has_output = !self.output(conn).is_empty();
        if bytes > 0 {
            self.conns.note_sent(conn, has_output, self.now_ns);
        }
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        Counters {
            http2_open: self.downstreams.len() as u64,
            tunnels_open: self.tunnels.len() as u64,
            upstreams_open: self.upstreams.len() as u64,
            calls_open: self.calls.len() as u64,
            ..self.counters
        }
    }

    /// Client connections that are open, of whatever kind.
    pub fn client_connections(&self) -> usize {
        self.sniffing.len() + self.downstreams.len() + self.tunnels.len()
    }
}
