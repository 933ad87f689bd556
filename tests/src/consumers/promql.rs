//! What a PromQL expression asks for: its metrics, and their labels. As much of the language as that takes.

use std::collections::{BTreeMap, BTreeSet};

/// The names in an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Each metric, with the labels that select among its series.
    pub metrics: BTreeMap<String, BTreeSet<String>>,
    /// Labels that series are grouped or matched by.
    pub labels: BTreeSet<String>,
}

/// What an identifier before a list of labels is.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words that are neither a function nor a metric.
const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

/// Reads an expression.
#[must_use]
pub fn names(expression: &str) -> Names {
    let mut names = Names::default();
    let mut rest = expression;
    // The metric whose braces are open; a list of labels that is open.
    let (mut metric, mut in_braces, mut in_labels) = (String::new(), false, false);
    while let Some(next) = rest.chars().next() {
        let after = match next {
            '"' | '\'' => quoted(rest),
            // A range and its step.
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            '0'..='9' => rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len()),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let end =
                    rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
                let (word, behind) = (&rest[..end], rest[end..].trim_start());
                if in_braces {
                    names.metrics.entry(metric.clone()).or_default().insert(word.to_owned());
                } else if in_labels {
                    names.labels.insert(word.to_owned());
                } else if BEFORE_LABELS.contains(&word) {
                    in_labels = behind.starts_with('(');
                } else if !behind.starts_with('(') && !WORDS.contains(&word) && !is_aggregation(behind) {
                    metric = word.to_owned();
                    names.metrics.entry(metric.clone()).or_default();
                }
                end
            }
            _ => {
                match next {
                    '{' => in_braces = true,
                    '}' => in_braces = false,
                    ')' => in_labels = false,
                    _ => (),
                }
                next.len_utf8()
            }
        };
        rest = &rest[after..];
    }
    names
}

/// `sum by (…) (…)`: a function whose parentheses come later.
fn is_aggregation(behind: &str) -> bool {
    ["by", "without"]
        .iter()
        .any(|word| behind.strip_prefix(word).is_some_and(|behind| behind.trim_start().starts_with('(')))
}

/// The length of the string that a text begins with.
fn quoted(text: &str) -> usize {
    let mut characters = text.char_indices();
    let Some((_, quote)) = characters.next() else { return 0 };
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn metrics_and_their_labels_are_found() {
        let found = names(
            r#"histogram_quantile(0.9, sum by (le, service) (rate(a_bucket{code=~"x{y}\"z", flag!="-"}[5m]))) > 2e3 and on (node) b offset 1h"#,
        );
        assert_eq!(found.metrics["a_bucket"], set(&["code", "flag"]));
        assert_eq!(found.metrics["b"], set(&[]));
        assert_eq!(found.metrics.len(), 2, "{found:?}");
        assert_eq!(found.labels, set(&["le", "service", "node"]));
    }

    #[test]
    fn an_aggregation_may_say_by_what_at_its_end() {
        let found =
            names("sum(rate(a[1m])) by (pod) / ignoring(x) group_left avg without (y) (c) or vector(1)");
        assert_eq!(found.metrics.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(found.labels, set(&["pod", "x", "y"]));
    }
}
