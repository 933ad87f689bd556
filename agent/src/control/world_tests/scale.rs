//! A large cluster. `cargo test --lib scale -- --ignored --nocapture` prints what it costs on this machine.

use super::*;
use crate::sources::rows::EndpointRow;
use crate::sources::sample::endpoint;

const SERVICES: usize = 10_000;
const ENDPOINTS_EACH: usize = 10;

fn large(service_number: usize, ready: usize) -> Change {
    let [.., high, low] = (service_number as u32).to_be_bytes();
    let endpoints = (0..ready).map(|at| EndpointRow {
        pod: Some(format!("shop/server-{service_number}-{at}").into()),
        ..endpoint(&format!("10.{}.{high}.{low}", at + 1))
    });
    let name = format!("server-{service_number}");
    set_slice(sample::slice(&format!("{name}-1"), &name, &GRPC, endpoints))
}

/// Resident memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "prints figures"]
fn figures_of_ten_thousand_services_with_a_hundred_thousand_endpoints() {
    let before = resident();
    let mut changes = Vec::new();
    for number in 0..SERVICES {
        let [.., high, low] = (number as u32).to_be_bytes();
        changes.push(set(service(
            &format!("server-{number}"),
            &[&format!("172.16.{high}.{low}")],
            &[("grpc", 80)],
        )));
        changes.push(large(number, ENDPOINTS_EACH));
    }
    let node = None;
    let mut world = World::new(Settings {
        node,
        own_pod_uid: None,
        addresses: 1 << 17,
        ids: 1 << 17,
        explicit_ports: vec![],
    });
    let begun = Instant::now();
    let delta = world.apply(changes);
    let took = begun.elapsed();
    assert_eq!(delta.add.len(), SERVICES);
    let bytes = resident() - before;
    println!("all at once: {took:?}; {} bytes an endpoint", bytes / (SERVICES * ENDPOINTS_EACH));
    let begun = Instant::now();
    for number in 0..SERVICES {
        let delta = world.apply(vec![large(number, ENDPOINTS_EACH - 1)]);
        assert!(delta.snapshot.is_some() && delta.add.is_empty());
    }
    println!("one change: {:?}", begun.elapsed() / SERVICES as u32);
}
