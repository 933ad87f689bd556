//! How answers are printed: as [`table`]s for people, as JSON or YAML for programs; [`paint`] says what has a colour, [`quiet`] writes it.

mod paint;
mod quiet;
mod table;

pub(super) use paint::{Paint, Palette};
pub(super) use quiet::{complain, print, say};
pub(super) use table::{Cell, RunningTable, Table};

use crate::telemetry::{is_obeyed, json_line};
use clap::{Args, ValueEnum};
use serde_json::Value;

/// How to print.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// As a table by default, with more columns, or for programs
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    /// Leave the table's first line out
    #[arg(long)]
    no_headers: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// How to print what has one table.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(super) struct ProgramOutputArgs {
    /// For programs
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<ProgramFormat>,
}

/// What programs read.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum ProgramFormat {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

impl ProgramFormat {
    fn document(self, value: &Value) -> String {
        match self {
            Self::Json => format!("{}\n", escaped(&format!("{value:#}"))),
            Self::Yaml => {
                let text = serde_saphyr::to_string(value).unwrap_or_else(|error| format!("# {error}\n"));
                if text.ends_with('\n') { text } else { text + "\n" }
            }
        }
    }

    fn item(self, value: &Value) -> String {
        match self {
            Self::Json => json_line(value) + "\n",
            Self::Yaml => format!("---\n{}", self.document(value)),
        }
    }
}

impl ProgramOutputArgs {
    /// Whether a program asks.
    pub(super) fn is_for_programs(self) -> bool {
        self.output.is_some()
    }

    /// The value as a program wants it, if one asks.
    pub(super) fn for_programs(self, value: &Value) -> Option<String> {
        Some(self.output?.document(value))
    }
}

impl OutputArgs {
    fn program(&self) -> Option<ProgramFormat> {
        match self.output? {
            Format::Wide => None,
            Format::Json => Some(ProgramFormat::Json),
            Format::Yaml => Some(ProgramFormat::Yaml),
        }
    }

    /// Whether all columns are asked for.
    pub(super) fn is_wide(&self) -> bool {
        self.output == Some(Format::Wide)
    }

    /// The value as a program wants it, if one asks.
    pub(super) fn for_programs(&self, value: &Value) -> Option<String> {
        Some(self.program()?.document(value))
    }

    /// One of many values that come one after the other as a program wants it, if one asks: a line, or a document.
    pub(super) fn item_for_programs(&self, value: &Value) -> Option<String> {
        Some(self.program()?.item(value))
    }

    /// Whether a table is to have its first line.
    pub(super) fn has_header(&self) -> bool {
        !self.no_headers
    }

    /// The table as text.
    pub(super) fn table(&self, table: &Table, palette: Palette) -> String {
        table.render(!self.no_headers, palette)
    }
}

/// JSON as it was, but for what a terminal obeys: outside of strings there is none of it but line breaks.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) && c != '\n' {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

/// Whose rows to show.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct NamespaceArgs {
    /// Of this namespace; by default of the kubeconfig's, and where an agent was reached without one, of all
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl NamespaceArgs {
    /// The one namespace to show, where a kubeconfig says that somebody works in `theirs`.
    pub(super) fn chosen(&self, theirs: Option<&str>) -> Option<String> {
        match &self.namespace {
            Some(namespace) => Some(namespace.clone()),
            None if self.all_namespaces => None,
            None => theirs.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn programs_get_what_they_ask_for() {
        let value = json!([{"node": "n1", "name": "a: b", "calls": 3, "none": null, "text": "yes"}]);
        let as_format = |output| OutputArgs { output, no_headers: false }.for_programs(&value);
        assert_eq!(as_format(None), None);
        assert_eq!(as_format(Some(Format::Wide)), None);
        let json: Value = serde_json::from_str(&as_format(Some(Format::Json)).unwrap()).unwrap();
        assert_eq!(json, value);
        let yaml: Value = serde_saphyr::from_str(&as_format(Some(Format::Yaml)).unwrap()).unwrap();
        assert_eq!(yaml, value);
        let as_item = |output| OutputArgs { output, no_headers: false }.item_for_programs(&value[0]);
        assert!(as_item(Some(Format::Json)).unwrap().starts_with(r#"{"calls":3,"#));
        assert!(as_item(Some(Format::Yaml)).unwrap().starts_with("---\n"));
        assert_eq!(as_item(Some(Format::Wide)), None);
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_reads_as_the_same() {
        let value = json!({"name": "a\u{1b}\u{7f}\u{9b}31m\n\u{202e}b", "of": ["c"]});
        let output = OutputArgs { output: Some(Format::Json), no_headers: false };
        let text = output.for_programs(&value).unwrap();
        assert!(!text.chars().any(|c| is_obeyed(c) && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_kubeconfigs_namespace_counts_unless_another_is_asked_for() {
        let args = |namespace: Option<&str>, all_namespaces| NamespaceArgs {
            namespace: namespace.map(str::to_owned),
            all_namespaces,
        };
        for (args, theirs, expected) in [
            (args(None, false), None, None),
            (args(None, false), Some("default"), Some("default")),
            (args(Some("shop"), false), Some("default"), Some("shop")),
            (args(Some("shop"), false), None, Some("shop")),
            (args(None, true), Some("default"), None),
        ] {
            assert_eq!(args.chosen(theirs).as_deref(), expected, "{args:?} {theirs:?}");
        }
    }
}
