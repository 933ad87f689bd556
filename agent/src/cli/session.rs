//! One command's talk with its agents: found, asked beside each other, and what did not answer said on standard error.

use super::output::{self, print};
use super::reach::{self, Ask, AskError, ReachArgs};
use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::process::ExitCode;

/// What the agents said.
pub(super) struct Told {
    /// Each agent that answered.
    pub(super) nodes: Vec<NodeTold>,
    /// The namespace that the person works in, by the kubeconfig.
    pub(super) namespace: Option<String>,
    /// Something is missing, which was said.
    pub(super) incomplete: bool,
}

/// What one agent said.
pub(super) struct NodeTold {
    pub(super) node: String,
    answers: Vec<Result<Value, AskError>>,
}

impl NodeTold {
    /// What it said to the question at this position. `None`: it does not know the page, as an older one.
    pub(super) fn answer(&self, position: usize) -> Option<&Value> {
        self.answers.get(position)?.as_ref().ok()
    }
}

/// A runtime for one command.
///
/// # Errors
/// When the system gives no event loop.
pub(super) fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(work)
}

/// Finds the agents and asks them all of it. Who does not answer, or has an answer to a question less, is said on standard error.
///
/// # Errors
/// When there is nobody to ask.
pub(super) async fn ask(args: &ReachArgs, asks: &[Ask]) -> Result<Told> {
    let found = reach::find(args).await?;
    let mut told =
        Told { nodes: Vec::new(), namespace: found.namespace, incomplete: !found.missing.is_empty() };
    for (node, why) in found.missing {
        complain(&node, &why);
    }
    for reach::Asked { agent, answers, .. } in reach::ask_all(found.agents, asks, args.limit()).await {
        match answers {
            Ok(answers) => {
                for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                    told.lack(&agent.node, &error.to_string());
                }
                told.nodes.push(NodeTold { node: agent.node, answers });
            }
            Err(error) => told.lack(&agent.node, &error.to_string()),
        }
    }
    Ok(told)
}

/// One line on standard error, of which the answers on standard output are not a part.
pub(super) fn complain(node: &str, why: &str) {
    output::complain(&format!("{node}: {why}"));
}

impl Told {
    /// Prints what came of it; success only if nothing is missing.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) fn finish(&self, text: &str) -> Result<ExitCode> {
        print(text)?;
        Ok(if self.incomplete || self.nodes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Says on standard error what a node's agent has not said.
    pub(super) fn lack(&mut self, node: &str, why: &str) {
        self.incomplete = true;
        complain(node, why);
    }

    /// All agents' lists at this position as one, each row with its node.
    pub(super) fn merged(&self, position: usize, keep: impl Fn(&Value) -> bool) -> Value {
        let of_node = |told: &NodeTold| {
            let rows = told.answer(position).and_then(Value::as_array).cloned().unwrap_or_default();
            let node = told.node.clone();
            rows.into_iter().map(move |row| with_node(row, &node))
        };
        let rows = self.nodes.iter().flat_map(|told| of_node(told).collect::<Vec<_>>());
        rows.filter(|row| keep(row)).collect()
    }

    /// The rows as what is shown of them. One that is none is left out, and said once for its node.
    pub(super) fn rows<T: DeserializeOwned>(&mut self, merged: &Value) -> Vec<T> {
        let mut wrong: Vec<(String, usize, String)> = Vec::new();
        let mut rows = Vec::new();
        for value in merged.as_array().into_iter().flatten() {
            match T::deserialize(value) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    let node = value["node"].as_str().unwrap_or("an agent");
                    match wrong.iter_mut().find(|(known, ..)| known == node) {
                        Some((_, count, _)) => *count += 1,
                        None => wrong.push((node.to_owned(), 1, error.to_string())),
                    }
                }
            }
        }
        for (node, count, error) in wrong {
            self.lack(&node, &format!("{count} rows of its answer are not an agent's: {error}"));
        }
        rows
    }

    /// Whether more than one agent was asked, so that the node matters.
    pub(super) fn are_several(&self) -> bool {
        self.nodes.len() > 1
    }
}

/// An answer, or a row of one, with whose it is.
pub(super) fn with_node(mut answer: Value, node: &str) -> Value {
    if let Value::Object(fields) = &mut answer {
        fields.insert("node".to_owned(), node.into());
    }
    answer
}

/// What is said where there is nothing to show.
pub(super) fn nothing(what: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("No {what} in the namespace {namespace} (-A shows those of all)."),
        None => format!("No {what}."),
    }
}

/// A time as kubectl prints ages.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What nodes would have said, for tests.
#[cfg(test)]
pub(super) fn told(nodes: &[(&str, &[Value])]) -> Told {
    let node = |(node, answers): &(&str, &[Value])| NodeTold {
        node: (*node).to_owned(),
        answers: answers.iter().cloned().map(Ok).collect(),
    };
    Told { nodes: nodes.iter().map(node).collect(), namespace: None, incomplete: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_none_is_left_out_and_makes_the_answer_incomplete() {
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct Row {
            node: String,
            name: String,
        }
        let row = |name: &str| serde_json::json!({ "name": name });
        let good = Value::from(vec![row("a"), row("b")]);
        let bad = Value::from(vec![
            row("c"),
            17.into(),
            Value::Null,
            serde_json::json!([1]),
            serde_json::json!({"name": 7}),
        ]);
        let mut told = told(&[("n1", &[good]), ("n2", &[bad])]);
        let merged = told.merged(0, |_| true);
        assert!(!told.incomplete);
        let rows: Vec<Row> = told.rows(&merged);
        let names: Vec<_> = rows.iter().map(|row| (row.node.as_str(), row.name.as_str())).collect();
        assert_eq!(names, [("n1", "a"), ("n1", "b"), ("n2", "c")]);
        assert!(told.incomplete);
    }

    #[test]
    fn ages_are_short() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_799, "47h"),
            (864_000, "10d"),
        ] {
            assert_eq!(age(seconds), expected);
        }
    }
}
