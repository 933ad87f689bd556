//! `evenkeel explain`: what would become of a call, and why. The agent of the pod's node decides; this prints it.

use super::endpoints::latency;
use super::output::{Cell, OutputArgs, Paint, Palette, Table};
use super::reach::{Ask, ReachArgs};
use super::session;
use crate::admin::table::printable;
use crate::control::explain::Question;
use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use serde::Deserialize;
use std::process::ExitCode;

/// What `evenkeel explain` takes.
#[derive(Args, Debug)]
#[command(mut_arg("pod", |pod| pod.required(true).help("The pod that calls; its node's agent is asked").help_heading("The call")))]
pub(super) struct ExplainArgs {
    /// What it dials, as an app has it: cart:50051, cart.shop.svc.cluster.local:50051, 10.96.0.5:50051
    #[arg(long, value_name = "HOST:PORT", help_heading = "The call")]
    to: String,
    /// What it calls there
    #[arg(long, value_name = "/PACKAGE.SERVICE/METHOD", help_heading = "The call")]
    method: Option<String>,
    /// A header of the call; may be there several times
    #[arg(long, value_name = "NAME=VALUE", help_heading = "The call")]
    header: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// As much of an explanation as is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Explanation {
    pod: String,
    to: String,
    outcome: String,
    summary: String,
    steps: Vec<Step>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    question: String,
    answer: String,
    detail: Vec<String>,
    hypothetical: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    address: String,
    pod: Option<String>,
    zone: Option<String>,
    state: String,
    why: Option<String>,
    odds_percent: Option<f64>,
    weight: u64,
    active: u64,
    latency_us: Option<u64>,
    cost_us: Option<u64>,
}

/// Runs it.
pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let pod = args.reach.pod.as_ref().context("--pod says who calls")?.0.to_string();
    // What is wrong with the question is said without asking anybody.
    Question::parse(&pod, &args.to, args.method.as_deref(), &args.header)
        .map_err(|wrong| anyhow!("--{wrong}"))?;
    let method = args.method.iter().map(|method| ("method", method.as_str()));
    let headers = args.header.iter().map(|header| ("header", header.as_str()));
    let parameters =
        [("pod", pod.as_str()), ("to", args.to.as_str())].into_iter().chain(method).chain(headers);
    let told = session::run(session::ask(&args.reach, &[Ask::get_with("/explain", parameters).of_object()]))?;
    let answers: Vec<_> = told.nodes.iter().filter_map(|node| node.answer(0)).collect();
    let [answer] = answers[..] else {
        return match answers.is_empty() {
            true => Ok(ExitCode::FAILURE),
            false => bail!("several agents were asked: --node is not for this, as the pod's own node is"),
        };
    };
    if let Some(text) = args.output.for_programs(answer) {
        return told.finish(&text);
    }
    let explanation = Explanation::deserialize(answer)
        .context("the answer is no explanation: is the agent of another version?")?;
    told.finish(&text(&explanation, &args.output, Palette::of_stdout()))
}

fn text(explanation: &Explanation, output: &OutputArgs, palette: Palette) -> String {
    let mut text = format!("{} → {}\n\n", printable(&explanation.pod), printable(&explanation.to));
    let mut is_told = false;
    for (number, step) in explanation.steps.iter().enumerate() {
        if step.hypothetical && !is_told {
            is_told = true;
            text.push_str(&palette.paint("   If it were otherwise:\n", Paint::Odd));
        }
        let answer = palette
            .paint(&printable(&step.answer), if step.hypothetical { Paint::Faint } else { Paint::Bold });
        text.push_str(&format!("{:>2} {} {answer}\n", number + 1, printable(&step.question)));
        for line in &step.detail {
            text.push_str(&format!("     {}\n", printable(line)));
        }
    }
    if !explanation.endpoints.is_empty() {
        text.push('\n');
        text.push_str(&output.table(&table(&explanation.endpoints, output.is_wide()), palette));
    }
    let paint = if explanation.outcome == "balanced" { Paint::Good } else { Paint::Odd };
    text.push_str(&format!("\n{}\n", palette.paint(&printable(&explanation.summary), paint)));
    text
}

fn table(endpoints: &[Endpoint], is_wide: bool) -> Table {
    let mut columns = vec!["ENDPOINT", "POD", "STATE", "ODDS", "ACTIVE", "LATENCY", "COST"];
    if is_wide {
        columns.extend(["WEIGHT", "ZONE"]);
    }
    columns.push("WHY");
    let mut table = Table::new(columns);
    for endpoint in endpoints {
        let paint = match endpoint.state.as_str() {
            "candidate" => Paint::Good,
            "ejected" | "unhealthy" => Paint::Bad,
            _ => Paint::Faint,
        };
        let mut cells: Vec<Cell> = vec![
            endpoint.address.as_str().into(),
            endpoint.pod.clone().into(),
            Cell::painted(endpoint.state.as_str(), paint),
            endpoint.odds_percent.map(|odds| format!("{odds:.1}%")).into(),
            endpoint.active.into(),
            endpoint.latency_us.map(latency).into(),
            endpoint.cost_us.map(latency).into(),
        ];
        if is_wide {
            cells.extend([endpoint.weight.into(), endpoint.zone.clone().into()]);
        }
        cells.push(endpoint.why.clone().into());
        table.push(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_decision_is_a_line_with_its_reasons_below() {
        let answer = json!({
            "pod": "shop/web", "to": "cart:80", "outcome": "straight", "summary": "The connection goes straight: so it is.",
            "steps": [
                {"question": "Is the pod enrolled?", "answer": "no", "detail": ["the pod's label says no"]},
                {"question": "Whose is it?", "answer": "shop/cart:80\u{1b}", "hypothetical": true},
            ],
            "endpoints": [
                {"address": "10.0.0.1:80", "state": "candidate", "odds_percent": 66.66, "active": 2, "weight": 100},
                {"address": "10.0.0.2:80", "pod": "shop/c", "state": "ejected", "latency_us": 1500, "why": "for 3 s more"},
            ],
        });
        let explanation = Explanation::deserialize(&answer).unwrap();
        let expected = "\
shop/web → cart:80

 1 Is the pod enrolled? no
     the pod's label says no
   If it were otherwise:
 2 Whose is it? shop/cart:80\\u{1b}

ENDPOINT      POD      STATE       ODDS     ACTIVE   LATENCY   COST     WHY
10.0.0.1:80   <none>   candidate   66.7%    2        <none>    <none>   <none>
10.0.0.2:80   shop/c   ejected     <none>   0        1.5ms     <none>   for 3 s more

The connection goes straight: so it is.
";
        assert_eq!(text(&explanation, &OutputArgs::default(), Palette::Plain), expected);
    }
}
