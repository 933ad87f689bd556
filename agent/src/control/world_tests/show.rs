//! What people see.

use super::*;

#[test]
fn what_the_admin_endpoint_shows() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    let backend = setup.world.backend(&port_of("cart", 80)).unwrap();
    backend.endpoints[0].load.calls.store(3, std::sync::atomic::Ordering::Relaxed);
    let shown = serde_json::json!({
        "services": setup.world.services(),
        "endpoints": setup.world.endpoints(),
        "ids": setup.world.ids(),
    });
    assert_eq!(
        shown,
        serde_json::json!({
            "services": [{
                "namespace": "shop", "name": "cart", "addresses": ["10.96.0.1"], "picker": "ewma",
                "ports": [{"port": 80, "name": "grpc", "captured": ["10.96.0.1:80"], "endpoints": 1}],
            }],
            "endpoints": [{
                "service_port": "shop/cart:80", "address": "10.0.0.1:9000", "active": 0, "calls": 3, "failures": 0,
                "share_percent": 100.0, "weight": 100,
            }],
            "ids": {"capacity": 1000, "live": 1, "resting": 0},
        })
    );
    setup.apply(cart(&[]));
    let port = &setup.world.services()[0].ports[0];
    assert_eq!(
        (port.captured.len(), &port.straight[..]),
        (0, &["10.96.0.1:80: no endpoint is ready".to_owned()][..])
    );
}
