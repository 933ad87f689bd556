//! Changes one at a time lead where all of them at once lead. `SEED=n` replays one run.

use super::*;
use crate::balance::Random;
use crate::mesh::Picker;
use crate::sources::rows::{
    Access, Conditions, Enabled, EndpointRow, LoadBalancerAddress, Mesh, NodeRow, PodRow, ServiceKind,
    Waypoint,
};
use crate::sources::sample::hints;
use std::net::IpAddr;

const RUNS: u64 = 60;
const BATCHES: usize = 120;

/// Chooses among a few of everything, so that they meet.
struct Dice(Random);

impl Dice {
    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.0.below(all.len())].clone()
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.0.below(one_in) == 0
    }

    fn up_to(&mut self, most: usize) -> usize {
        self.0.below(most + 1)
    }

    fn ip(&mut self, net: [u8; 3]) -> IpAddr {
        let host = 1 + self.0.below(4) as u8;
        match self.chance(4) {
            true => format!("fd00:{}::{host}", net[1]).parse().unwrap(),
            false => [net[0], net[1], net[2], host].into(),
        }
    }

    fn ips(&mut self, net: [u8; 3]) -> Vec<IpAddr> {
        (0..self.up_to(2)).map(|_| self.ip(net)).collect()
    }

    fn asked(&mut self) -> Option<bool> {
        self.one_of(&[None, None, Some(true), Some(false)])
    }

    fn waypoint(&mut self) -> Waypoint {
        self.one_of(&[Waypoint::Unset, Waypoint::Unset, Waypoint::None, Waypoint::Named("gate".into())])
    }

    fn namespace(&mut self) -> Arc<str> {
        self.one_of(&["shop", "shop-2", "stock"]).into()
    }

    fn name(&mut self) -> ObjectName {
        let namespace = self.namespace();
        ObjectName { namespace, name: self.one_of(&["a", "b", "c", "d"]).into() }
    }

    fn row(&mut self) -> Row {
        match self.0.below(10) {
            0 => Row::Namespace(Arc::new(NamespaceRow {
                name: self.namespace(),
                with_mesh: self.asked(),
                waypoint: self.waypoint(),
                ambient: self.chance(4),
                ..sample::namespace(self.one_of(&[
                    Enabled::Unset,
                    Enabled::Yes,
                    Enabled::Invalid("1".into()),
                ]))
            })),
            1 => Row::Node(Arc::new(NodeRow {
                name: self.one_of(&[NODE, NODE, "node-2"]).into(),
                zone: self.one_of(&[None, Some("a".into()), Some("b".into())]),
            })),
            2 => self.pod(),
            3..6 => self.service(),
            _ => self.slice(),
        }
    }

    fn pod(&mut self) -> Row {
        let name = self.name();
        let enabled = self.one_of(&[Enabled::Unset, Enabled::Unset, Enabled::Yes, Enabled::No]);
        Row::Pod(Arc::new(PodRow {
            uid: format!("uid-{name}").into(),
            node: self.one_of(&[None, Some(NODE.into()), Some("node-2".into())]),
            mesh: self.one_of(&[None, None, Some(Mesh::Kuma)]),
            with_mesh: self.asked(),
            runtime_class: self.one_of(&[None, None, Some("gvisor".into())]),
            host_network: self.chance(6),
            finished: self.chance(6),
            ..PodRow { name, ..sample::pod("", enabled) }
        }))
    }

    fn service(&mut self) -> Row {
        let names = ["grpc", "h2c-x", "web"];
        let ports = (0..self.up_to(2)).map(|at| sample::service_port(self.one_of(&names), 80 + at as u16));
        let ports = ports.collect();
        let access = [Access::Direct, Access::BySourceRange, Access::ThroughLoadBalancer];
        let load_balancer = self.ips([192, 0, 2]).into_iter();
        let load_balancer =
            load_balancer.map(|ip| LoadBalancerAddress { ip, access: self.one_of(&access) }).collect();
        Row::Service(Arc::new(ServiceRow {
            name: self.name(),
            kind: self.one_of(&[
                ServiceKind::ClusterIp,
                ServiceKind::ClusterIp,
                ServiceKind::Headless,
                ServiceKind::ExternalName,
            ]),
            cluster_ips: self.ips([10, 96, 0]),
            external_ips: self.ips([192, 0, 2]),
            load_balancer,
            internal_traffic_local: self.chance(3),
            source_affinity: self.chance(4),
            waypoint: self.waypoint(),
            with_mesh: self.asked(),
            ports,
            balancing: self.one_of(&[Picker::Ewma, Picker::RoundRobin, Picker::Maglev]).into(),
            balance_headless: self.chance(2),
            other_proxy: self.chance(8),
            traffic_distribution: None,
        }))
    }

    fn slice(&mut self) -> Row {
        let some = [None, Some(true), Some(false)];
        let zones = [&["a"][..], &["b"], &["a", "b"], &[]];
        let nodes = [&[NODE][..], &["node-2"], &[], &[]];
        let endpoints: Vec<_> = (0..self.up_to(4))
            .map(|_| EndpointRow {
                address: self.ip([10, 0, 0]),
                conditions: Conditions {
                    ready: self.one_of(&some),
                    serving: self.one_of(&some),
                    terminating: self.one_of(&[None, Some(false), Some(true)]),
                },
                zone: None,
                node: self.one_of(&[None, Some(NODE.into()), Some("node-2".into())]),
                pod: None,
                hints: if self.chance(3) { None } else { hints(self.one_of(&zones), self.one_of(&nodes)) },
            })
            .collect();
        let name = self.name();
        let service = self.one_of(&["a", "b", "c", "d"]);
        let number = 9000 + self.up_to(1) as u16;
        let ports = [("grpc", number), ("h2c-x", 9100), ("web", 9200)];
        Row::Slice(Arc::new(SliceRow { name, ..sample::slice("", service, &ports, endpoints) }))
    }

    /// A change that may be, of what there is.
    fn change(&mut self, rows: &BTreeMap<RowKey, Row>) -> Change {
        if self.chance(4) && !rows.is_empty() {
            let at = self.0.below(rows.len());
            return Change::Remove(rows.keys().nth(at).unwrap().clone());
        }
        Change::Set(self.row())
    }
}

/// What follows from the rows, whichever way they came: all but ids and loads.
fn follows(setup: &Setup) -> serde_json::Value {
    let destinations = |map: &BTreeMap<SocketAddr, DestinationId>| -> Vec<_> {
        let of = |(address, id): (&SocketAddr, &DestinationId)| {
            let snapshot = setup.world.snapshot();
            let picker = snapshot.destinations[id].backend.balancing.picker;
            format!("{address} {:?} {picker:?}", setup.leads_to(*id))
        };
        map.iter().map(of).collect()
    };
    let mut endpoints = setup.world.endpoints();
    endpoints
        .sort_by(|one, other| (&one.service_port, one.address).cmp(&(&other.service_port, other.address)));
    // A Service port that is not captured keeps its endpoints while old connections are carried: history, not truth.
    let wanted: Vec<_> = setup
        .world
        .services()
        .into_iter()
        .map(|service| {
            let ports = service.ports.into_iter();
            let ports: Vec<_> =
                ports.map(|port| (port.port, port.captured, port.straight, port.unused)).collect();
            (service.namespace, service.name, service.picker, ports)
        })
        .collect();
    serde_json::json!({
        "captured": destinations(&setup.kernel),
        "without_endpoint": destinations(&setup.marked),
        "services": wanted,
        "pods": setup.world.pods(),
        "problems": setup.told(),
    })
}

#[test]
fn changes_one_at_a_time_lead_where_all_at_once_lead() {
    let replayed = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seeds = replayed.map_or(0..RUNS, |seed| seed..seed + 1);
    for seed in seeds {
        let mut dice = Dice(Random::new(seed));
        let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
        let mut setup = Setup::new();
        for batch in 0..BATCHES {
            let mut changes = Vec::new();
            for _ in 0..=dice.up_to(3) {
                let change = dice.change(&rows);
                match &change {
                    Change::Set(row) => drop(rows.insert(row.key(), row.clone())),
                    Change::Remove(key) => drop(rows.remove(key)),
                }
                changes.push(change);
            }
            setup.apply(changes);
            if dice.chance(20) {
                setup.rest();
            }
            if batch % 10 == 9 {
                let mut at_once = Setup::new();
                at_once.apply(rows.values().cloned().map(Change::Set).collect());
                assert_eq!(follows(&setup), follows(&at_once), "SEED={seed}, batch {batch}");
            }
        }
    }
}
