//! What is not surely HTTP/2 on a gRPC port is relayed byte for byte, whoever speaks first.

use anyhow::ensure;
use evenkeel_tests::cluster::GREETER_TARGET_PORT;
use evenkeel_tests::host::privileged;
use evenkeel_tests::peer::Opening;
use evenkeel_tests::{Agent, Cluster, Outcome};

fn is_relayed(opening: Opening, bytes: u64) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    cluster.enrol_namespace(true);
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let greet: &[&str] = if opening == Opening::Silent { &["--greet"] } else { &[] };
    let mut echo = server.echo(GREETER_TARGET_PORT, greet)?;
    let service = cluster.service("echo", &[&server])?;
    let _agent = Agent::start(&cluster)?;
    for to in [service.v4(), service.v6()] {
        let poured = client.pour(&to, opening, bytes)?;
        ensure!(poured.bytes == bytes, "{to}: {poured:?}");
    }
    // Relayed, too, it comes from the pod's own address.
    echo.line(&format!("accepted {}", client.ipv4))?;
    Ok(())
}

#[test]
fn tls() -> Outcome {
    is_relayed(Opening::Tls, 1_000_003)
}

#[test]
fn http_1_1() -> Outcome {
    is_relayed(Opening::Http1, 1_000_003)
}

#[test]
fn a_server_that_speaks_first() -> Outcome {
    is_relayed(Opening::Silent, 1_000_003)
}

#[test]
fn half_of_the_http_2_preface() -> Outcome {
    is_relayed(Opening::HalfPreface, 1_000_003)
}

#[test]
fn a_hundred_megabytes_each_way() -> Outcome {
    is_relayed(Opening::Tls, 100_000_000)
}

#[test]
fn connections_that_only_open_and_close() -> Outcome {
    is_relayed(Opening::Http1, 0)
}
