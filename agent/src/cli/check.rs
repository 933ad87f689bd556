//! `evenkeel check`.

use super::output::{Paint, Palette, ProgramOutputArgs, print};
use crate::admin::table::printable;
use crate::config::{ClusterArgs, ClusterConfig};
use crate::kernel::check::probe;
use crate::sources::kubernetes::Access;
use crate::sources::kubernetes::permissions::{Finding, check};
use crate::sources::kubernetes::write_back::Wishes;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `evenkeel check` takes.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The cgroup2 folder that the agent would attach at; by default the root of cgroup2
    #[arg(long, env = "EVENKEEL_CGROUP", value_name = "DIR")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    output: ProgramOutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A line of the answer.
struct Line {
    name: String,
    ok: bool,
    needed: bool,
    detail: String,
    remedy: String,
}

/// Prints what the node has and lacks; fails if something that the agent needs is missing.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn run(args: CheckArgs) -> Result<ExitCode> {
    let mut lines: Vec<Line> = probe(args.cgroup.as_deref())
        .into_iter()
        .map(|probe| Line {
            name: probe.name.into(),
            ok: probe.ok,
            needed: probe.needed,
            detail: probe.detail,
            remedy: probe.remedy.into(),
        })
        .collect();
    lines.extend(of_cluster(args.cluster.as_given()));
    let missing = lines.iter().filter(|line| line.verdict() == Verdict::Lacks).count();
    let points = || lines.iter().map(Line::value).collect::<Value>();
    let said =
        args.output.is_for_programs().then(points).and_then(|points| args.output.for_programs(&points));
    print(&said.unwrap_or_else(|| text(&lines, missing, Palette::of_stdout())))?;
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As people read it.
fn text(lines: &[Line], missing: usize, palette: Palette) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let (name, detail, verdict) = (&line.name, printable(&line.detail), line.verdict());
        let (word, paint) = verdict.word();
        let word = palette.paint(&format!("{word:<5}"), paint);
        text.push_str(&format!("{word}  {name:<width$}  {detail}\n"));
        if !line.remedy.is_empty() {
            text.push_str(&format!("{:<5}  {:<width$}  → {}\n", "", "", printable(&line.remedy)));
        }
    }
    text.push_str(&match missing {
        0 => "\nThe agent can run here.\n".to_owned(),
        missing => format!("\nThe agent cannot run here: {missing} of what it needs is missing.\n"),
    });
    text
}

/// What the API server says, where there is one to ask: in a pod, or with a kubeconfig.
fn of_cluster(config: ClusterConfig) -> Vec<Line> {
    if config.kubeconfig.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        return vec![Line {
            name: "API server".into(),
            ok: true,
            needed: false,
            detail: "not asked: neither in a pod nor with --kubeconfig".into(),
            remedy: String::new(),
        }];
    }
    let ClusterConfig { kubeconfig, node_name, startup_taint, label_pods, .. } = config;
    let wishes = Wishes { startup_taint, label_pods };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let findings = match runtime {
        Ok(runtime) => runtime.block_on(check(&Access { kubeconfig }, node_name.as_deref(), &wishes)),
        Err(error) => vec![Finding {
            what: "API server",
            needed: true,
            outcome: Err(format!("can't be asked: {error}")),
            remedy: String::new(),
        }],
    };
    let line = |Finding { what, needed, outcome, remedy }| {
        let ok = outcome.is_ok();
        Line { name: String::from(what), ok, needed, detail: outcome.unwrap_or_else(|lacks| lacks), remedy }
    };
    findings.into_iter().map(line).collect()
}

/// What is to be thought of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// The agent cannot do without.
    Lacks,
    /// It can.
    Note,
}

impl Verdict {
    fn word(self) -> (&'static str, Paint) {
        match self {
            Self::Ok => ("ok", Paint::Good),
            Self::Lacks => ("LACKS", Paint::Bad),
            Self::Note => ("note", Paint::Odd),
        }
    }
}

impl Line {
    fn verdict(&self) -> Verdict {
        match (self.ok, self.needed) {
            (true, _) => Verdict::Ok,
            (false, true) => Verdict::Lacks,
            (false, false) => Verdict::Note,
        }
    }

    /// As programs read it.
    fn value(&self) -> Value {
        json!({
            "name": self.name,
            "verdict": self.verdict().word().0.to_ascii_lowercase(),
            "needed": self.needed,
            "detail": self.detail,
            "remedy": (!self.remedy.is_empty()).then_some(&self.remedy),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_read_the_same() {
        let line = |ok, needed, remedy: &str| Line {
            name: "cgroup2".into(),
            ok,
            needed,
            detail: "what\u{1b} was found".into(),
            remedy: remedy.into(),
        };
        let lines = [line(true, true, ""), line(false, false, "could be"), line(false, true, "must be")];
        let plain = text(&lines, 1, Palette::Plain);
        let expected = "\
ok     cgroup2  what\\u{1b} was found
note   cgroup2  what\\u{1b} was found
                → could be
LACKS  cgroup2  what\\u{1b} was found
                → must be

The agent cannot run here: 1 of what it needs is missing.
";
        assert_eq!(plain, expected);
        let coloured = text(&lines, 1, Palette::Colours);
        assert!(coloured.contains("\u{1b}[31mLACKS\u{1b}[0m  cgroup2  "), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[32mok   \u{1b}[0m  cgroup2  "), "{coloured:?}");
        let told: Vec<Value> = lines.iter().map(Line::value).collect();
        for (value, verdict) in told.iter().zip(["ok", "note", "lacks"]) {
            assert_eq!(value["verdict"], verdict);
        }
        assert_eq!((&told[0]["remedy"], &told[2]["remedy"]), (&Value::Null, &"must be".into()));
        assert_eq!(told[2]["needed"], true);
    }
}
