//! What happened between two samples, for programs: numbers as they are, and names as `/calls` has them.

use super::By;
use super::rates::Line;
use serde_json::{Map, Value, json};

/// The lines, an object each.
pub(super) fn document(lines: &[Line], by: By) -> Value {
    let all: u64 = lines.iter().map(|line| line.calls).sum();
    lines.iter().map(|line| Value::Object(row(line, by, all))).collect()
}

fn row(line: &Line, by: By, all: u64) -> Map<String, Value> {
    let mut row = names(line, by);
    let mut put = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
    put("calls", line.calls.into());
    put("failures", line.failures.into());
    put("calls_per_second", line.per_second.into());
    put("failures_per_second", line.failed_per_second.into());
    put("share", share(line.calls, all));
    put("failed_share", share(line.failures, line.calls.max(line.failures)));
    put("latency_ms", line.latency_us.map(|us| us / 1e3).into());
    if by.has_active() {
        put("active", line.active.into());
    }
    row
}

fn names(line: &Line, by: By) -> Map<String, Value> {
    let name = |position: usize| line.names.get(position).map_or("", String::as_str);
    let service = || format!("{}/{}", name(0), name(1));
    let names = match by {
        By::Service => json!({ "service": service() }),
        By::Endpoint => json!({ "service": service(), "endpoint": name(2) }),
        By::Method => json!({ "service": service(), "method": name(2) }),
        By::Pod => json!({ "namespace": name(0), "pod": name(1) }),
    };
    match names {
        Value::Object(names) => names,
        _ => Map::new(),
    }
}

/// From 0 to 1; null of nothing.
fn share(part: u64, whole: u64) -> Value {
    (whole > 0).then(|| part as f64 / whole as f64).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(names: &[&str], calls: u64, failures: u64) -> Line {
        Line {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            per_second: calls as f64 / 2.0,
            failed_per_second: failures as f64 / 2.0,
            active: 3,
            latency_us: (calls > 0).then_some(1_500.0),
            calls,
            failures,
        }
    }

    #[test]
    fn a_line_is_an_object_with_the_names_that_the_agents_have() {
        let lines = [
            line(&["shop", "cart:80", "10.0.0.1:80"], 30, 3),
            line(&["shop", "cart:80", "10.0.0.2:80"], 0, 0),
        ];
        let expected = json!([
            {
                "service": "shop/cart:80", "endpoint": "10.0.0.1:80", "calls": 30, "failures": 3, "calls_per_second": 15.0,
                "failures_per_second": 1.5, "share": 1.0, "failed_share": 0.1, "latency_ms": 1.5, "active": 3,
            },
            {
                "service": "shop/cart:80", "endpoint": "10.0.0.2:80", "calls": 0, "failures": 0, "calls_per_second": 0.0,
                "failures_per_second": 0.0, "share": 0.0, "failed_share": null, "latency_ms": null, "active": 3,
            },
        ]);
        assert_eq!(document(&lines, By::Endpoint), expected);
        let of = |by, names: &[&str]| document(&[line(names, 1, 0)], by)[0].clone();
        assert_eq!(of(By::Service, &["shop", "cart:80"])["service"], "shop/cart:80");
        let by_method = of(By::Method, &["shop", "cart:80", "p.S/M"]);
        assert_eq!((&by_method["method"], &by_method["active"]), (&"p.S/M".into(), &Value::Null));
        let by_pod = of(By::Pod, &["shop", "web-0"]);
        assert_eq!((&by_pod["namespace"], &by_pod["pod"]), (&"shop".into(), &"web-0".into()));
        assert_eq!(document(&[], By::Pod), json!([]));
    }
}
