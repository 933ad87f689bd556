use super::*;
use std::sync::{Arc, Mutex};

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn a_target_is_read_as_it_is_written() {
    for text in
        ["cart:80", "cart.shop.svc.cluster.local:50051", "10.0.0.1:9000", "[fd00::1]:9000", "a_b-c.d.:1"]
    {
        assert_eq!(target(text).to_string(), text);
    }
    assert_eq!(target("10.0.0.1:9000").host, Host::Address("10.0.0.1".parse().unwrap()));
    for (text, cause) in [
        ("cart", "no port"),
        ("cart:", "not a number"),
        ("cart:0", "not a number"),
        ("cart:65536", "not a number"),
        (":80", "name of a host"),
        ("a b:80", "name of a host"),
        ("fd00::1:80", "in brackets"),
        ("[fd00::x]:80", "no IPv6 address"),
        ("[10.0.0.1]:80", "no IPv6 address"),
        ("http://cart:80", "the scheme"),
        ("cart\n:80", "name of a host"),
    ] {
        let error = text.parse::<Target>().unwrap_err();
        assert!(error.contains(cause), "{text:?}: {error}");
    }
}

/// A resolver whose records a test can change.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<HashMap<String, Answer>>>);

type Answer = io::Result<Vec<&'static str>>;

impl Records {
    fn set(&self, name: &str, addresses: &[&'static str]) {
        self.0.lock().unwrap().insert(name.to_owned(), Ok(addresses.to_vec()));
    }

    fn fail(&self, name: &str) {
        self.0.lock().unwrap().insert(name.to_owned(), Err(io::Error::other("server failure")));
    }

    async fn open(&self, targets: &[&str]) -> (NameSource, Vec<SocketAddr>) {
        let records = self.clone();
        let look_up = move |name: String, port| {
            let answer = match &records.0.lock().unwrap()[&name] {
                Ok(ips) => Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect()),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            async move { answer }
        };
        NameSource::open_with(
            targets.iter().map(|text| target(text)).collect(),
            Duration::from_millis(1),
            look_up,
        )
        .await
    }
}

/// Waits for a problem while no address changes.
async fn first_problem(source: &mut NameSource) -> String {
    let problems = source.problems();
    loop {
        if let Some(problem) = problems.current().first() {
            return problem.to_string();
        }
        tokio::select! {
            addresses = source.next() => panic!("the addresses changed: {addresses:?}"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
}

#[tokio::test]
async fn a_name_is_looked_up_again_and_changes_are_told() {
    let records = Records::default();
    records.set("cart", &["10.0.0.2", "10.0.0.1"]);
    let (mut source, first) = records.open(&["cart:80", "10.0.0.2:80", "10.0.0.9:81"]).await;
    assert_eq!(texts(&first), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:81"]);
    records.set("cart", &["10.0.0.3"]);
    assert_eq!(texts(&source.next().await), ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.9:81"]);
}

#[tokio::test]
async fn a_failed_look_up_keeps_the_last_good_answer_and_is_told() {
    let records = Records::default();
    records.set("cart", &["10.0.0.1"]);
    records.set("stock", &["10.0.1.1"]);
    let (mut source, _) = records.open(&["cart:80", "stock:80"]).await;
    records.fail("cart");
    let problem = first_problem(&mut source).await;
    assert_eq!(problem, "cart:80: can't look it up: server failure; its last good answer goes on");
    records.set("stock", &["10.0.1.2"]);
    assert_eq!(texts(&source.next().await), ["10.0.0.1:80", "10.0.1.2:80"]);
    records.set("cart", &["10.0.0.2"]);
    assert_eq!(texts(&source.next().await), ["10.0.0.2:80", "10.0.1.2:80"]);
    assert!(source.problems().current().is_empty());
}

#[tokio::test]
async fn a_name_without_an_answer_at_the_start_comes_later() {
    let records = Records::default();
    records.set("cart", &[]);
    let (mut source, first) = records.open(&["cart:80"]).await;
    assert_eq!(texts(&first), [] as [&str; 0]);
    assert_eq!(source.problems().current()[0].to_string(), "cart:80: can't look it up: it has no address");
    records.set("cart", &["fd00::1"]);
    assert_eq!(texts(&source.next().await), ["[fd00::1]:80"]);
}

#[tokio::test]
async fn a_target_that_is_named_twice_is_one() {
    let records = Records::default();
    records.set("cart", &["10.0.0.1"]);
    let (source, first) = records.open(&["cart:80", "cart:80", "10.0.0.1:80"]).await;
    assert_eq!((texts(&first), source.tasks.len()), (vec!["10.0.0.1:80".to_owned()], 1));
}

#[tokio::test]
async fn of_both_families_the_ipv4_addresses_count() {
    let records = Records::default();
    records.set("cart", &["fd00::1", "10.0.0.1", "fd00::2"]);
    let (_source, first) = records.open(&["cart:80"]).await;
    assert_eq!(texts(&first), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn names_of_the_hosts_file_are_known() {
    let (_source, addresses) = NameSource::open(vec![target("localhost:80")]).await;
    assert!(
        addresses.iter().all(|address| address.ip().is_loopback()) && !addresses.is_empty(),
        "{addresses:?}"
    );
}
