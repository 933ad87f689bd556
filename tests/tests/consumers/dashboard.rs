//! Grafana's dashboard: each of its queries is one that Prometheus answers, over names that there are, and with the clients' own counts.

use crate::rules::Scraped;
use crate::watched::Watched;
use anyhow::{Context, Result, ensure};
use evenkeel_tests::Outcome;
use evenkeel_tests::cluster::NODE_NAME;
use evenkeel_tests::deploy;
use evenkeel_tests::host::privileged;
use serde_json::Value;
use std::collections::BTreeSet;

/// Panels that are empty while all is well, or in this run may be, or without an API server.
const QUIET: [&str; 4] = [
    "Connections from before a pod was enrolled",
    "Endpoints that are left out",
    "Since the API server was heard of",
    "Lists and watches that failed",
];

struct Query {
    panel: String,
    expression: String,
}

fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(deploy::chart().join("files/dashboard.json"))?)?)
}

/// The panels that are no headings.
fn panels(dashboard: &Value) -> Result<Vec<&Value>> {
    let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
    Ok(panels.iter().filter(|panel| panel["type"] != "row").collect())
}

/// All queries, with its variables as Grafana fills them in.
fn queries(dashboard: &Value, range: &str) -> Result<Vec<Query>> {
    let mut found = Vec::new();
    for panel in panels(dashboard)? {
        let title = panel["title"].as_str().context("a panel has a title")?;
        for target in panel["targets"].as_array().with_context(|| format!("{title} asks for nothing"))? {
            let expression = target["expr"].as_str().with_context(|| format!("{title} has an expression"))?;
            let expression = expression
                .replace("$__rate_interval", range)
                .replace("$node", NODE_NAME)
                .replace("$service", ".*");
            ensure!(!expression.contains('$'), "{title}: {expression}");
            found.push(Query { panel: title.to_owned(), expression });
        }
    }
    Ok(found)
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() -> Outcome {
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    ensure!(ids.len() == panels.len() && !ids.contains(&None));
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place =
            |side: &str| panel["gridPos"][side].as_u64().with_context(|| format!("{side} of {panel}"));
        let (x, y, width, height) = (place("x")?, place("y")?, place("w")?, place("h")?);
        for cell in (y..y + height).flat_map(|row| (x..x + width).map(move |column| (row, column))) {
            ensure!(cell.1 < 24 && taken.insert(cell), "{} is on another", panel["title"]);
        }
    }
    Ok(())
}

#[test]
fn every_query_of_the_dashboard_is_answered() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let dashboard = dashboard()?;
    let titles: BTreeSet<_> =
        panels(&dashboard)?.into_iter().filter_map(|panel| panel["title"].as_str()).collect();
    ensure!(QUIET.iter().all(|quiet| titles.contains(quiet)), "{titles:?}");
    let watched = Watched::start()?;
    let scraped = Scraped::read(&watched.agent.metrics()?);
    let mut silent = Vec::new();
    for Query { panel, expression } in queries(&dashboard, &watched.range())? {
        scraped.has_names_of(&expression).with_context(|| panel.clone())?;
        let answer =
            watched.prometheus.query_at(&expression, watched.after).with_context(|| panel.clone())?;
        if !answer.iter().any(|sample| sample.value.is_finite()) && !QUIET.contains(&panel.as_str()) {
            silent.push(format!("{panel}: {expression}: {answer:?}"));
        }
    }
    ensure!(silent.is_empty(), "{silent:#?}");
    check_numbers(&watched, &dashboard)?;
    check_variables(&watched, &dashboard)
}

/// What panels show is what the clients counted.
fn check_numbers(watched: &Watched, dashboard: &Value) -> Outcome {
    let queries = queries(dashboard, &watched.range())?;
    let value = |panel: &str| -> Result<f64> {
        let query = queries.iter().find(|query| query.panel == panel).with_context(|| panel.to_owned())?;
        watched.prometheus.sum_at(&query.expression, watched.after)
    };
    let run = &watched.run;
    let (least, most) = (run.answered() as f64, (run.answered() + run.cancelled()) as f64);
    for panel in ["Calls a second", "Methods that are called most"] {
        let calls = watched.count(value(panel)?);
        ensure!(
            (least - 0.01..=most + 0.01).contains(&calls),
            "{panel}: {calls} calls, not {least} to {most}"
        );
    }
    let wrong = watched.count(value("What went wrong")?);
    let (least, most) = (run.failed() as f64, (run.failed() + run.cancelled()) as f64);
    ensure!((least - 0.01..=most + 0.01).contains(&wrong), "{wrong} went wrong, not {least} to {most}");
    let share = value("Share of calls that fail")?;
    ensure!((0.05..0.5).contains(&share), "a share of {share}");
    for (panel, expected) in [
        ("Agents that answer", 1.0),
        ("Agents that are ready", 1.0),
        ("Pods enrolled", 4.0),
        ("Pods not enrolled", 1.0),
        ("Pods that are not enrolled, and why", 1.0),
    ] {
        let found = value(panel)?;
        ensure!(found == expected, "{panel}: {found}");
    }
    Ok(())
}

/// What a person chooses among: `label_values(METRIC, LABEL)`.
fn check_variables(watched: &Watched, dashboard: &Value) -> Outcome {
    let variables = dashboard["templating"]["list"].as_array().context("there are variables")?;
    for (name, expected) in [("node", NODE_NAME), ("service", "shop/greeter:50051")] {
        let variable = variables.iter().find(|variable| variable["name"] == name).context(name)?;
        let query =
            variable["definition"].as_str().context("a variable has a query")?.replace("$node", NODE_NAME);
        let inside = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
        let (series, label) =
            inside.and_then(|inside| inside.rsplit_once(", ")).with_context(|| query.clone())?;
        let found = watched.prometheus.query_at(&format!("count by ({label}) ({series})"), watched.after)?;
        let values: Vec<_> = found.iter().map(|sample| sample.label(label)).collect();
        ensure!(values == [expected], "{query}: {values:?}");
    }
    Ok(())
}
