//! What happened between two samples, a line for each of what is looked at.

use super::super::endpoints::{latency, share};
use super::super::output::{Cell, Paint, Palette, Table};
use super::sample::{Count, Sample, Series};
use super::{By, View};
use crate::admin::table::printable;
use clap::ValueEnum;
use std::collections::BTreeMap;

/// What comes first.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Most calls
    Calls,
    /// Most failed calls
    Errors,
    /// Longest latency
    Latency,
    /// By name
    Name,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Calls => Self::Errors,
            Self::Errors => Self::Latency,
            Self::Latency => Self::Name,
            Self::Name => Self::Calls,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Name => "name",
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// The namespace, then what is looked at.
    pub(super) names: Vec<String>,
    pub(super) per_second: f64,
    pub(super) failed_per_second: f64,
    pub(super) active: u64,
    pub(super) latency_us: Option<f64>,
    pub(super) calls: u64,
    pub(super) failures: u64,
}

/// What is summed up for a line.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    per_second: f64,
    failed_per_second: f64,
    calls: u64,
    failures: u64,
    active: u64,
    /// Latency in all, and of how many calls.
    latency: (f64, f64),
}

/// The lines, in no order. Each agent's counts go by its own times; what one has counted that did not answer before is not known to be of
/// this interval.
pub(super) fn rates(before: &Sample, after: &Sample, by: By, namespace: Option<&str>) -> Vec<Line> {
    let mut sums: BTreeMap<Vec<String>, Sum> = BTreeMap::new();
    let counted = after.nodes.iter().flat_map(|(node, counted)| {
        let earlier = before.nodes.get(node);
        let seconds = earlier.map_or(1.0, |earlier| counted.at.duration_since(earlier.at).as_secs_f64());
        counted.series.iter().map(move |(series, now)| (series, now, earlier, seconds.max(1e-3)))
    });
    for (series, now, earlier, seconds) in counted {
        let names = names(series, by);
        if namespace.is_some_and(|namespace| names[0] != namespace) {
            continue;
        }
        let last = match earlier.map(|earlier| (earlier.series.get(series), earlier.is_cut)) {
            Some((Some(last), _)) => *last,
            // It was there, among what was cut off or not answered: what it has grown by is not known.
            Some((None, true)) | None => *now,
            Some((None, false)) => Count::default(),
        };
        let sum = sums.entry(names).or_default();
        let (calls, failures) = (since(now.calls, last.calls), since(now.failures, last.failures));
        sum.calls += calls;
        sum.failures += failures;
        sum.per_second += calls as f64 / seconds;
        sum.failed_per_second += failures as f64 / seconds;
        sum.active += now.active;
        sum.latency = add_latency(sum.latency, now, &last, calls);
    }
    let line = |(names, sum): (Vec<String>, Sum)| Line {
        names,
        per_second: sum.per_second,
        failed_per_second: sum.failed_per_second,
        active: sum.active,
        latency_us: (sum.latency.1 > 0.0).then(|| sum.latency.0 / sum.latency.1),
        calls: sum.calls,
        failures: sum.failures,
    };
    sums.into_iter().map(line).collect()
}

/// What a counter has grown by. Of one that is lower than it was, nobody knows: it has begun anew with its agent, or what it sums up has
/// lost a part that ended.
fn since(now: u64, last: u64) -> u64 {
    now.saturating_sub(last)
}

/// Of a line's latency, each call counts as much; of moving averages, each by the calls meanwhile, or else a little, for something to
/// be seen of who is idle.
fn add_latency((total, count): (f64, f64), now: &Count, last: &Count, calls: u64) -> (f64, f64) {
    const IDLE: f64 = 1e-6;
    match (now.latency_sum_us, now.latency_us) {
        (Some(sum), _) => (total + since(sum, last.latency_sum_us.unwrap_or(0)) as f64, count + calls as f64),
        (None, Some(average)) => {
            let weight = (calls as f64).max(IDLE);
            (total + average as f64 * weight, count + weight)
        }
        (None, None) => (total, count),
    }
}

/// The namespace, then the names that make a line.
fn names(series: &Series, by: By) -> Vec<String> {
    let parted = |text: &str| {
        let (namespace, name) = text.split_once('/').unwrap_or(("", text));
        (namespace.to_owned(), name.to_owned())
    };
    let (namespace, service) = parted(&series.service_port);
    match by {
        By::Service => vec![namespace, service],
        By::Endpoint => vec![namespace, service, series.endpoint.clone()],
        By::Method => vec![namespace, service, series.method.clone()],
        By::Pod => {
            let (namespace, pod) = parted(&series.source);
            vec![namespace, pod]
        }
    }
}

/// What stands above the table.
pub(super) fn header(lines: &[Line], view: &View, after: &Sample, palette: Palette) -> String {
    let (what, order) = (view.by, view.order);
    let all: f64 = lines.iter().map(|line| line.per_second).sum();
    let failed: f64 = lines.iter().map(|line| line.failed_per_second).sum();
    let active: u64 = lines.iter().map(|line| line.active).sum();
    let by = match what {
        By::Service => "service",
        By::Endpoint => "endpoint",
        By::Method => "method",
        By::Pod => "pod",
    };
    let mut text = format!("{} calls/s, {} failed/s", rate(all), rate(failed));
    if what.has_active() {
        text.push_str(&format!(", {active} under way"));
    }
    text.push_str(&format!("   by {by}, sorted by {}", order.name()));
    if view.is_live {
        text.push_str(&format!("   {}", palette.paint("q quit, s sort, b by", Paint::Faint)));
    }
    text.push('\n');
    for complaint in &after.complaints {
        text.push_str(&format!("{}\n", palette.paint(&printable(complaint), Paint::Bad)));
    }
    text.push('\n');
    text
}

/// The lines, what comes first before the others.
pub(super) fn in_order(mut lines: Vec<Line>, order: Order) -> Vec<Line> {
    lines.sort_by(|one, other| {
        let first = match order {
            Order::Calls => other.per_second.total_cmp(&one.per_second),
            Order::Errors => other.failed_per_second.total_cmp(&one.failed_per_second),
            Order::Latency => other.latency_us.unwrap_or(0.0).total_cmp(&one.latency_us.unwrap_or(0.0)),
            Order::Name => std::cmp::Ordering::Equal,
        };
        first.then_with(|| one.names.cmp(&other.names))
    });
    lines
}

/// The lines, as people read them.
pub(super) fn table(lines: Vec<Line>, by: By, with_namespace: bool) -> Table {
    let mut columns = Vec::new();
    columns.extend(with_namespace.then_some("NAMESPACE"));
    match by {
        By::Service => columns.push("SERVICE"),
        By::Endpoint => columns.extend(["SERVICE", "ENDPOINT"]),
        By::Method => columns.extend(["SERVICE", "METHOD"]),
        By::Pod => columns.push("POD"),
    }
    columns.extend(["CALLS/S", "SHARE", "FAILED/S", "FAILED", "LATENCY"]);
    columns.extend(by.has_active().then_some("ACTIVE"));
    let mut table = Table::new(columns);
    let all: u64 = lines.iter().map(|line| line.calls).sum();
    for line in lines {
        let mut cells: Vec<Cell> =
            line.names.into_iter().skip(usize::from(!with_namespace)).map(Cell::from).collect();
        let failed = share(line.failures, line.calls.max(line.failures));
        cells.extend([
            rate(line.per_second).into(),
            share(line.calls, all).into(),
            rate(line.failed_per_second).into(),
            match failed {
                Some(failed) if line.failures > 0 => Cell::painted(failed, Paint::Bad),
                failed => failed.into(),
            },
            line.latency_us.map(|us| latency(us as u64)).into(),
        ]);
        cells.extend(by.has_active().then(|| Cell::from(line.active)));
        table.push(cells);
    }
    table
}

fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{per_second:.2}"),
        ..1_000.0 => format!("{per_second:.1}"),
        _ => format!("{per_second:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{CallsPage, Counted, of_endpoints};
    use super::*;
    use serde_json::{Value, json};
    use std::collections::HashMap;
    use std::time::Duration;
    use tokio::time::Instant;

    fn row(address: &str, calls: u64, failures: u64) -> Value {
        json!({
            "service_port": "shop/cart:80", "address": address, "calls": calls, "failures": failures, "active": 2,
            "latency_us": 1_000,
        })
    }

    fn sample(at: Instant, rows: &[Value]) -> Sample {
        let series = of_endpoints(&rows.iter().cloned().collect()).unwrap();
        of_node("n1", at, series, false)
    }

    fn of_node(node: &str, at: Instant, series: HashMap<Series, Count>, is_cut: bool) -> Sample {
        let nodes = [(node.to_owned(), Counted { at, series, is_cut })].into();
        Sample { nodes, ..Sample::default() }
    }

    #[test]
    fn two_samples_make_rates() {
        let start = Instant::now();
        let before = sample(start, &[row("10.0.0.1:80", 100, 1), row("10.0.0.2:80", 500, 0)]);
        let after = sample(
            start + Duration::from_secs(2),
            // The second has begun anew, of which nothing is known, and the third is new.
            &[row("10.0.0.1:80", 400, 4), row("10.0.0.2:80", 60, 0), row("10.0.0.3:80", 40, 40)],
        );
        let of = |by, order, namespace| {
            table(in_order(rates(&before, &after, by, namespace), order), by, namespace.is_none())
                .render(true, Palette::Plain)
        };
        let expected = "\
NAMESPACE   SERVICE   ENDPOINT      CALLS/S   SHARE   FAILED/S   FAILED   LATENCY   ACTIVE
shop        cart:80   10.0.0.1:80   150.0     88.2%   1.50       1.0%     1.0ms     2
shop        cart:80   10.0.0.3:80   20.0      11.8%   20.0       100.0%   1.0ms     2
shop        cart:80   10.0.0.2:80   0         0.0%    0          <none>   1.0ms     2
";
        assert_eq!(of(By::Endpoint, Order::Calls, None), expected);
        let by_errors = of(By::Endpoint, Order::Errors, Some("shop"));
        assert!(by_errors.lines().nth(1).unwrap().starts_with("cart:80   10.0.0.3:80 "), "{by_errors}");
        let expected = "\
SERVICE   CALLS/S   SHARE    FAILED/S   FAILED   LATENCY   ACTIVE
cart:80   170.0     100.0%   21.5       12.6%    1.0ms     6
";
        assert_eq!(of(By::Service, Order::Name, Some("shop")), expected);
        assert_eq!(rates(&before, &after, By::Service, Some("other")), []);
    }

    fn of_calls(at: Instant, is_cut: bool, rows: &[Value]) -> Sample {
        let page = json!({ "calls": rows, "total": rows.len() + usize::from(is_cut), "cut": is_cut });
        of_node("n1", at, CallsPage::read(&page).unwrap().counted(), is_cut)
    }

    #[test]
    fn what_is_counted_by_call_is_shown_by_whatever_is_asked_for() {
        let row = |method: &str, calls: u64, failures: u64, sum_ms: f64| {
            json!({
                "service": "shop/cart:80", "method": method, "calls": calls, "failures": failures,
                "latency": { "sum_ms": sum_ms },
            })
        };
        let at = Instant::now();
        let before = of_calls(at, false, &[row("p.S/M", 10, 0, 100.0)]);
        let rows = [row("p.S/M", 25, 5, 125.0), row("p.S/N", 10, 0, 100.0)];
        let after = of_calls(at + Duration::from_secs(1), false, &rows);
        let of = |before: &Sample, after: &Sample, by| {
            table(in_order(rates(before, after, by, None), Order::Calls), by, true)
                .render(true, Palette::Plain)
        };
        let expected = "\
NAMESPACE   SERVICE   METHOD   CALLS/S   SHARE   FAILED/S   FAILED   LATENCY
shop        cart:80   p.S/M    15.0      60.0%   5.00       33.3%    1.7ms
shop        cart:80   p.S/N    10.0      40.0%   0          0.0%     10.0ms
";
        assert_eq!(of(&before, &after, By::Method), expected);
        let pod = json!({ "namespace": "web", "pod": "a", "calls": 15, "latency": { "sum_ms": 15.0 } });
        let by_pod =
            of(&of_calls(at, false, &[]), &of_calls(at + Duration::from_secs(1), false, &[pod]), By::Pod);
        assert!(by_pod.lines().nth(1).unwrap().starts_with("web         a     15.0 "), "{by_pod}");
    }

    #[test]
    fn a_line_that_was_cut_off_before_is_not_taken_for_one_that_has_just_begun() {
        let at = Instant::now();
        let row =
            |method: &str, calls: u64| json!({ "service": "shop/cart:80", "method": method, "calls": calls });
        for (is_cut, expected) in [(true, 10), (false, 5_010)] {
            let before = of_calls(at, is_cut, &[row("p.S/M", 6_000)]);
            let after =
                of_calls(at + Duration::from_secs(1), is_cut, &[row("p.S/M", 6_010), row("p.S/N", 5_000)]);
            let calls: u64 = rates(&before, &after, By::Method, None).iter().map(|line| line.calls).sum();
            assert_eq!(calls, expected);
        }
    }

    #[test]
    fn who_does_not_answer_is_named_above_the_table() {
        let mut after = sample(Instant::now(), &[]);
        after.complaints.push("n2: no answer\u{1b}".to_owned());
        let shown = |is_live| {
            let view = View { by: By::Service, order: Order::Calls, namespace: None, is_live };
            header(&[], &view, &after, Palette::Plain)
        };
        let head = "0 calls/s, 0 failed/s, 0 under way   by service, sorted by calls";
        assert_eq!(shown(true), format!("{head}   q quit, s sort, b by\nn2: no answer\\u{{1b}}\n\n"));
        assert_eq!(shown(false), format!("{head}\nn2: no answer\\u{{1b}}\n\n"));
    }

    #[test]
    fn who_was_silent_for_a_while_has_not_called_all_at_once_and_each_agents_own_time_counts() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let both = |n1: (u64, u64), n2: Option<(u64, u64)>| {
            let mut sample = sample(at(n1.0), &[row("10.0.0.1:80", n1.1, 0)]);
            if let Some((seconds, calls)) = n2 {
                let mut other = self::sample(at(seconds), &[row("10.0.0.1:80", calls, 1)]);
                sample.nodes.extend(other.nodes.remove("n1").map(|counted| ("n2".to_owned(), counted)));
            }
            sample
        };
        let rate = |before: &Sample, after: &Sample| {
            let lines = rates(before, after, By::Service, None);
            (lines[0].per_second, lines[0].failed_per_second, lines[0].active)
        };
        // n2 hangs for ten seconds, in which n1 has answered at once.
        let (known, lost) = (both((0, 100), Some((0, 10_000_000))), both((2, 300), None));
        assert_eq!(rate(&known, &lost), (100.0, 0.0, 2));
        let back = both((12, 1_300), Some((13, 10_000_500)));
        assert_eq!(rate(&lost, &back), (100.0, 0.0, 4), "what it had counted is not of this interval");
        let late = both((14, 1_500), Some((18, 10_001_000)));
        assert_eq!(rate(&back, &late), (200.0, 0.0, 4));
        let restarted = both((16, 1_700), Some((20, 200)));
        assert_eq!(rate(&late, &restarted), (100.0, 0.0, 4), "of a count that fell nothing is known");
    }
}
