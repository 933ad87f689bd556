//! What the kernel programs say.

use crate::app::dial;
use crate::node::{Node, SERVICE_V4, can_run};
use evenkeel::kernel::{Kernel, LoadOptions};
use log::{LevelFilter, Log, Metadata, Record};
use std::sync::Mutex;

static LINES: Lines = Lines(Mutex::new(Vec::new()));

struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target().starts_with("evenkeel_ebpf") {
            self.0.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_taken_connection_is_logged_only_where_asked_for() {
    if !can_run() {
        return;
    }
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let mut node = Node::start();
    let line = || LINES.0.lock().unwrap().pop();

    node.taken(dial(SERVICE_V4), 4);
    node.kernel.log().unwrap().flush();
    assert_eq!(line(), None);

    let options = LoadOptions { log_connections: true, ..LoadOptions::default() };
    let talkative = Kernel::load(&options).unwrap();
    node.links = talkative.attach(&node.cgroup.path).unwrap();
    let silent = std::mem::replace(&mut node.kernel, talkative);
    // Another test's process, forked this moment, may hold a copy of the old links until it is another program.
    silent.withdraw(node.netns.cookie()).unwrap();
    for known in silent.known_destinations().unwrap() {
        node.kernel.add_destination(known.address, known.id).unwrap();
    }
    node.enrol(&node.enrolment());
    node.beat(u64::MAX);
    node.taken(dial(SERVICE_V4), 4);
    node.kernel.log().unwrap().flush();
    let expected = format!("DEBUG took a connection to destination 4 on port {}", node.listener.port);
    assert_eq!(line(), Some(expected));
    assert_eq!(line(), None);
}

#[test]
fn the_kernels_handle_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Kernel>();
}
