//! Connections that one worker accepts and another one serves.

use super::hang::ByHand;
use super::*;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn a_connection_that_is_handed_over_while_its_pod_ends_ends_with_it() {
    let ticks = [(); 2].map(|()| -> &'static AtomicU64 { Box::leak(Box::new(AtomicU64::new(0))) });
    let (workers, ready) = Workers::prepare(&config(), &ticks).unwrap();
    let [mut home, mut other] = <[_; 2]>::try_from(ready).ok().expect("two").map(ByHand::new);
    let socket = TcpListener::bind("127.1.0.7:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = workers.listen(ListenerSpec { socket, source: Source::Pod(pod()) }).unwrap();
    workers.publish(&snapshot(1, &[], Picker::RoundRobin, address));
    home.turn();
    other.until("both have the snapshot", |_| workers.applied() == 1);
    workers.shared.mailboxes[0].busy_permille.store(1_000, Relaxed);
    let _client = TcpStream::connect(address).unwrap();

    // The pod ends while its home is in the middle of a turn: the other worker hears of that first, and of the connection then.
    workers.unlisten(listener, true);
    other.turn();
    home.worker.accept(0);
    other.until("it has the connection", |worker| worker.engine.client_connections() == 1);
    home.turn();
    other.until("it is gone", |_| workers.connections(fixed()) == 0);
}
