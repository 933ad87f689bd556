//! Pickers that hash: how even their shares are, and what moves when endpoints come and go.

use super::*;
use crate::mesh::HashTable;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// Where each of many keys goes.
fn by_key(picker: Picker, endpoints: &[Arc<Endpoint>], keys: usize, excluded: &[usize]) -> Vec<SocketAddr> {
    let mut random = Random::new(7);
    let backend = backend(picker, endpoints);
    let pick_of = |key| {
        let mut state = PickerState::new(&mut random, key);
        let is_excluded = |index: usize| excluded.contains(&index);
        let first =
            pick(&backend, &backend.endpoints, None, &mut state, &mut random, 1, is_excluded).unwrap();
        let again =
            pick(&backend, &backend.endpoints, None, &mut state, &mut random, 2, is_excluded).unwrap();
        assert_eq!(first, again);
        endpoints[first].address
    };
    // Hashes of names are far apart, addresses of endpoints are not.
    let mut sources = Random::new(3);
    (0..keys).map(|_| sources.next()).map(pick_of).collect()
}

/// The largest share and the smallest, in even shares.
fn extremes(chosen: &[SocketAddr], endpoints: usize) -> (f64, f64) {
    let mut counts: HashMap<_, usize> = HashMap::new();
    chosen.iter().for_each(|address| *counts.entry(address).or_default() += 1);
    assert_eq!(counts.len(), endpoints, "each has a share");
    let even = chosen.len() as f64 / endpoints as f64;
    let of = |count: Option<&usize>| *count.unwrap() as f64 / even;
    (of(counts.values().max()), of(counts.values().min()))
}

/// The share of the keys that go elsewhere.
fn moved(before: &[SocketAddr], after: &[SocketAddr]) -> f64 {
    before.iter().zip(after).filter(|(before, after)| before != after).count() as f64 / before.len() as f64
}

const BY_HASH: [Picker; 3] = [Picker::RingHash, Picker::Maglev, Picker::SourceHash];

#[test]
fn keys_are_spread_and_each_stays_where_it_is() {
    for (picker, most, least) in
        [(Picker::RingHash, 1.35, 0.7), (Picker::Maglev, 1.1, 0.9), (Picker::SourceHash, 1.1, 0.9)]
    {
        for count in [3, 10, 50] {
            let endpoints = endpoints(count);
            let chosen = by_key(picker, &endpoints, 1000 * count, &[]);
            let (largest, smallest) = extremes(&chosen, count);
            assert!(largest < most && smallest > least, "{picker:?} {count}: {smallest} to {largest}");
        }
    }
    // Neither the order of the endpoints matters nor what the picker has met before.
    let endpoints = endpoints(5);
    let reversed: Vec<_> = endpoints.iter().rev().cloned().collect();
    for picker in [Picker::RingHash, Picker::SourceHash] {
        assert_eq!(by_key(picker, &reversed, 500, &[]), by_key(picker, &endpoints, 500, &[]));
    }
}

#[test]
fn a_maglev_table_is_even_to_a_slot() {
    let HashTable::Maglev(slots) = maglev::table(&endpoints(50)) else { panic!("it is Maglev's") };
    let mut counts = [0; 50];
    slots.iter().for_each(|owner| counts[*owner as usize] += 1);
    assert!(counts.iter().all(|count| [1310, 1311].contains(count)), "{counts:?}");
}

#[test]
fn a_table_is_kept_while_what_it_is_made_of_stays_and_one_of_maglevs_is_made_for_who_is_called() {
    let three = endpoints(3);
    let of = |picker, endpoints: &[Arc<Endpoint>], before: Option<&Backend>| {
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let backend = Backend::new(service_port, endpoints.into(), picker);
        prepare(&backend, before);
        backend
    };
    let table = |backend: &Backend| backend.table.get().cloned();
    let idle = of(Picker::Maglev, &three, None);
    assert!(table(&idle).is_none(), "nobody has called it");
    assert!(table(&of(Picker::RingHash, &three, None)).is_some(), "small as its endpoints are few");
    three[1].load.calls.store(1, Relaxed);
    let called = of(Picker::Maglev, &three, Some(&idle));
    let made = table(&called).expect("calls would make it else");
    let again = of(Picker::Maglev, &three, Some(&called));
    assert!(Arc::ptr_eq(&table(&again).unwrap(), &made));
    // Another endpoint, weight or picker is another table.
    let heavier =
        [&three[..2], &[Arc::new(Endpoint { weight: 200, ..Endpoint::at(three[2].address) })]].concat();
    for (picker, endpoints) in
        [(Picker::Maglev, &three[..2]), (Picker::Maglev, &heavier[..]), (Picker::RingHash, &three[..])]
    {
        let other = table(&of(picker, endpoints, Some(&called))).unwrap();
        assert!(!Arc::ptr_eq(&other, &made), "{picker:?}");
    }
}

#[test]
fn when_an_endpoint_goes_only_the_keys_that_it_had_move() {
    let endpoints = endpoints(5);
    for picker in BY_HASH {
        let before = by_key(picker, &endpoints, 5000, &[]);
        let without = [&endpoints[..2], &endpoints[3..]].concat();
        let gone = endpoints[2].address;
        // Ejected, or not there any more.
        for (is_there, after) in
            [(true, by_key(picker, &endpoints, 5000, &[2])), (false, by_key(picker, &without, 5000, &[]))]
        {
            let mut moved_to = HashSet::new();
            let mut others = 0;
            for (before, after) in before.iter().zip(&after) {
                if *before == gone {
                    moved_to.insert(*after);
                } else if before != after {
                    others += 1;
                }
            }
            assert_eq!(moved_to.len(), 4, "they spread over all that stay");
            // Maglev moves some more (the paper's figure 12), where the table is another.
            let most = if picker == Picker::Maglev && !is_there { 5000 / 20 } else { 0 };
            assert!(others <= most, "{picker:?}: {others} of the others");
        }
    }
}

#[test]
fn when_one_of_many_endpoints_comes_about_its_share_moves() {
    let all = endpoints(51);
    // Consistent hashing moves one of 51, Maglev's table of 65,537 that and not quite as much again.
    for (picker, most) in
        [(Picker::RingHash, 1.35 / 51.0), (Picker::Maglev, 2.0 / 51.0), (Picker::SourceHash, 1.1 / 51.0)]
    {
        let moved = moved(&by_key(picker, &all[1..], 50_000, &[]), &by_key(picker, &all, 50_000, &[]));
        assert!((0.7 / 51.0..most).contains(&moved), "{picker:?}: {moved}");
    }
}

#[test]
fn the_table_of_very_many_endpoints_is_bounded_and_has_them_all() {
    let endpoints = endpoints(3000);
    let HashTable::Ring { points, owners } = ring_hash::table(&endpoints) else { panic!("it is a ring") };
    assert!(points.len() <= 1 << 18 && points.is_sorted());
    assert_eq!(owners.iter().collect::<HashSet<_>>().len(), 3000);
    // However heavy they are.
    let heavy = |index: u32| {
        let address = SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + index), 50051));
        Arc::new(Endpoint { weight: Endpoint::MOST_WEIGHT, ..Endpoint::at(address) })
    };
    let heavy: Vec<_> = (0..30_000).map(heavy).collect();
    let HashTable::Ring { points, .. } = ring_hash::table(&heavy) else { panic!("it is a ring") };
    assert!((30_000..=1 << 18).contains(&points.len()), "{}", points.len());
}

#[test]
fn where_all_but_one_are_out_that_one_is_found() {
    let endpoints = endpoints(300);
    let but_one: Vec<usize> = (0..299).collect();
    for picker in BY_HASH {
        assert!(
            by_key(picker, &endpoints, 20, &but_one).iter().all(|address| *address == endpoints[299].address)
        );
    }
}

#[test]
fn a_request_without_the_header_goes_anywhere_and_one_with_it_to_its_endpoint() {
    let hash_on = crate::mesh::HashOn::Header("x-user".into());
    for picker in [Picker::RingHash, Picker::Maglev] {
        let mut backend = backend(picker, &endpoints(4));
        backend.balancing.hash_on = hash_on.clone();
        let mut random = Random::new(1);
        let mut chosen = |fields: &[(&str, &str)]| {
            let mut request = FieldList::new();
            fields.iter().for_each(|(name, value)| request.push(name.as_bytes(), value.as_bytes()));
            let one = |_| {
                let mut state = PickerState::new(&mut random, 9);
                pick(&backend, &backend.endpoints, Some(&request), &mut state, &mut random, 1, |_| false)
                    .unwrap()
            };
            (0..100).map(one).collect::<HashSet<_>>()
        };
        assert_eq!(chosen(&[("x-other", "a")]).len(), 4);
        let of_users: Vec<_> = (0..40).map(|user| chosen(&[("x-user", &user.to_string())])).collect();
        assert!(of_users.iter().all(|one| one.len() == 1));
        assert_eq!(of_users.into_iter().flatten().collect::<HashSet<_>>().len(), 4);
    }
}
