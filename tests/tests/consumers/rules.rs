//! The alert rules: good by promtool's own word, raised when they should be, over names that there are.

use crate::watched::Watched;
use anyhow::{Context, Result, ensure};
use evenkeel_tests::Outcome;
use evenkeel_tests::consumers::{promql, promtool};
use evenkeel_tests::deploy;
use evenkeel_tests::host::privileged;
use evenkeel_tests::wait::eventually_some;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn file() -> PathBuf {
    deploy::chart().join("files/rules.yaml")
}

/// The rules of all groups.
fn rules() -> Result<Vec<Value>> {
    let read: Value = serde_saphyr::from_str(&std::fs::read_to_string(file())?)?;
    let groups = read["groups"].as_array().context("there are groups")?;
    Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
}

fn says_success(arguments: &[&str]) -> Outcome {
    let output = promtool(arguments, "")?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
    ensure!(output.status.success() && said.contains("SUCCESS"), "promtool {arguments:?}: {said}");
    Ok(())
}

#[test]
fn promtool_finds_the_rules_in_order() -> Outcome {
    says_success(&["check", "rules", "--lint=all", "--lint-fatal", &file().to_string_lossy()])
}

#[test]
fn each_alert_is_raised_when_it_should_be_and_not_else() -> Outcome {
    let tests = deploy::folder("prometheus/rules.test.yaml");
    says_success(&["test", "rules", &tests.to_string_lossy()])?;
    // None is left out.
    let tests = std::fs::read_to_string(tests)?;
    for rule in rules()? {
        let name = rule["alert"].as_str().context("each is an alert")?;
        ensure!(tests.contains(name), "{name} has no test");
    }
    Ok(())
}

#[test]
fn each_alert_says_how_grave_it_is_what_it_is_and_what_to_do() -> Outcome {
    let rules = rules()?;
    let names: BTreeSet<_> = rules.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    ensure!(names.len() == rules.len() && names.iter().all(|name| name.starts_with("Evenkeel")), "{names:?}");
    for rule in &rules {
        let severity = rule["labels"]["severity"].as_str();
        ensure!(severity.is_some_and(|severity| ["critical", "warning"].contains(&severity)), "{rule}");
        for annotation in ["summary", "description", "action"] {
            let text = rule["annotations"][annotation].as_str();
            ensure!(
                text.is_some_and(|text| text.len() > 20 && !text.contains('\n')),
                "{annotation} of {rule}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_real_prometheus_evaluates_all_rules_over_metrics_that_there_are() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let watched = Watched::start()?;
    let scraped = Scraped::read(&watched.agent.metrics()?);
    for rule in rules()? {
        scraped.has_names_of(rule["expr"].as_str().context("a rule has an expression")?)?;
    }
    let evaluated = eventually_some("every rule has been evaluated", || {
        let answer = watched.prometheus.ask("rules")?;
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> =
            groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect();
        Ok(rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules))
    })?;
    ensure!(evaluated.len() == rules()?.len(), "{evaluated:#?}");
    for rule in &evaluated {
        ensure!(rule["health"] == "ok" && rule.get("lastError").is_none(), "{rule}");
    }
    // One pod cannot be enrolled, and that is all that is wrong.
    let pending = eventually_some("an alert waits for its time", || {
        let found = watched.prometheus.query(r#"ALERTS{alertname="EvenkeelPodsNotEnrolled"}"#)?;
        Ok(found.into_iter().next())
    })?;
    ensure!(pending.label("alertstate") == "pending" && pending.label("namespace") == "shop", "{pending:?}");
    ensure!(pending.label("node") == "node-1" && pending.label("reason") == "host_network", "{pending:?}");
    Ok(())
}

/// The names of a scrape.
#[derive(Debug)]
pub(crate) struct Scraped {
    metrics: BTreeMap<String, BTreeSet<String>>,
}

/// Prometheus' own, and what it says of a target.
const OF_PROMETHEUS: &str = "up";
const OF_TARGETS: [&str; 3] = ["job", "instance", "node"];
/// Those that have no series here, and without one are not announced: they take a program that another has attached in the old way, and an
/// API server.
const WITHOUT_SERIES: [(&str, &[&str]); 3] = [
    ("evenkeel_legacy_attachment", &["cgroup", "kind", "effect"]),
    ("evenkeel_source_seconds_since_contact", &["kind"]),
    ("evenkeel_source_failures_total", &["kind"]),
];

impl Scraped {
    pub(crate) fn read(text: &str) -> Self {
        let mut metrics = BTreeMap::<String, BTreeSet<String>>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let read = promql::names(line.rsplit_once(' ').map_or(line, |(series, _)| series));
            for (name, labels) in read.metrics {
                metrics.entry(name).or_default().extend(labels);
            }
        }
        for (name, labels) in WITHOUT_SERIES {
            metrics.insert(name.to_owned(), labels.iter().map(|&label| label.to_owned()).collect());
        }
        metrics.insert(OF_PROMETHEUS.to_owned(), BTreeSet::new());
        Self { metrics }
    }

    /// Checks that each metric and label of an expression is one.
    pub(crate) fn has_names_of(&self, expression: &str) -> Outcome {
        let wanted = promql::names(expression);
        ensure!(!wanted.metrics.is_empty(), "no metric in {expression}");
        let mut known: BTreeSet<&str> = OF_TARGETS.into();
        for (name, labels) in &wanted.metrics {
            let of_metric =
                self.metrics.get(name).with_context(|| format!("nobody tells {name}: {expression}"))?;
            known.extend(of_metric.iter().map(String::as_str));
            for label in labels {
                let is_known = of_metric.contains(label) || OF_TARGETS.contains(&label.as_str());
                ensure!(is_known, "{name} has no label {label}: {expression}");
            }
        }
        for label in &wanted.labels {
            ensure!(known.contains(label.as_str()), "there is no label {label}: {expression}");
        }
        Ok(())
    }
}

#[test]
fn a_name_that_nobody_tells_is_found() {
    let scraped = Scraped::read("# TYPE a counter\na_total{x=\"1\"} 1\n# EOF\n");
    assert!(
        scraped
            .has_names_of("sum by (x, node) (rate(a_total{x=~\"1\",job=\"j\"}[5m])) and on (job) up")
            .is_ok()
    );
    for wrong in ["sum(b_total)", "a_total{y=\"1\"}", "sum by (y) (a_total)"] {
        assert!(scraped.has_names_of(wrong).is_err(), "{wrong}");
    }
}
