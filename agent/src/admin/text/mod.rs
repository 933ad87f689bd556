//! The answers for people: what [`routes`](mod@super::routes) says as JSON, as aligned tables. The command line makes its own.
//!
//! [`world`] has what the agent was told and made of it, [`traffic`] connections and calls, [`inside`] how the agent itself stands;
//! [`cells`] is what all of them are made with.

mod cells;
mod inside;
mod traffic;
mod world;

use super::page::{Leads, Page};
use cells::names_and_values;
use serde_json::Value;

/// An answer for people.
pub(super) fn text(leads: Leads, answer: &Value) -> String {
    match leads {
        Leads::Index => inside::index(answer),
        Leads::Page(page) => page_text(page, answer),
        Leads::Calls => traffic::calls(answer),
        // It is no one value, and has lines of its own.
        Leads::Tap => String::new(),
        Leads::Log => names_and_values(answer),
        Leads::Cpu => inside::cpu(answer),
        Leads::Heap => inside::heap(answer),
        Leads::OpenApi => format!("{answer:#}\n"),
    }
}

/// A page's JSON for people.
pub fn page_text(page: Page, answer: &Value) -> String {
    match page {
        Page::Pods => world::pods(answer),
        Page::Services => world::services(answer),
        Page::Endpoints => world::endpoints(answer),
        Page::Source => world::source(answer),
        Page::Problems => world::problems(answer),
        Page::Connections => traffic::connections(answer),
        Page::Streams => traffic::streams(answer),
        Page::Snapshot => world::snapshot(answer),
        Page::Workers => inside::workers(answer),
        Page::Kernel => inside::kernel(answer),
        Page::Explain => world::explanation(answer),
        Page::Status | Page::Config => names_and_values(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_explanation_says_is_told_from_what_would_be_and_steers_no_terminal() {
        let answer = json!({
            "summary": "straight\u{1b}[2J",
            "steps": [
                { "question": "Is it\u{202e}?", "answer": "no", "detail": ["because\u{1b}"] },
                { "question": "Then?", "answer": "taken", "hypothetical": true },
            ],
        });
        let text = page_text(Page::Explain, &answer);
        assert!(
            text.starts_with(
                "1. Is it\\u{202e}? no\n   because\\u{1b}\n2. Then? taken (if it were otherwise)\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("straight\\u{1b}[2J\n"), "{text}");
    }

    #[test]
    fn pods_are_shown_with_what_their_connections_met() {
        let pods = json!([
            { "namespace": "shop", "name": "web", "enrolled": true, "enrolled_for_seconds": 60, "open_connections": 2, "memory_bytes": 1_572_864,
              "connections": { "taken": 7, "agent_silent": 1, "no_endpoint": 2, "udp": 0 } },
            { "namespace": "shop", "name": "db", "enrolled": false, "reason": "no process" },
        ]);
        let text = page_text(Page::Pods, &pods);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            ["shop", "web", "yes", "60", "2", "7", "3", "1.5", "agent_silent", "1,", "no_endpoint", "2"]
        );
        assert_eq!(lines[2], ["shop", "db", "no", "-", "-", "-", "-", "-", "no", "process"]);
    }

    #[test]
    fn an_object_is_shown_value_by_value() {
        let answer = json!({ "ids": { "live": 2, "resting": 0 }, "list": [1, 2], "rows": [{ "a": null }], "none": {} });
        let text = page_text(Page::Config, &answer);
        let lines: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let expected: [&[&str]; 5] = [
            &["ids.live", "2"],
            &["ids.resting", "0"],
            &["list", "1,", "2"],
            &["none", "-"],
            &["rows.0.a", "-"],
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn calls_have_the_columns_that_they_are_told_apart_by() {
        let counts =
            json!({ "calls": 7, "failures": 1, "attempts": 8, "latency": { "p50_ms": 1.25, "p99_ms": 3.0 } });
        let mut row = counts.clone();
        row["service"] = "shop/cart:80".into();
        let answer = json!({ "by": ["service"], "calls": [row], "total": 3, "cut": true, "others": counts });
        let text = text(Leads::Calls, &answer);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..4], ["SERVICE", "CALLS", "FAILED", "ATTEMPTS"]);
        assert_eq!(lines[1][..5], ["shop/cart:80", "7", "1", "8", "1.2"]);
        assert_eq!(lines[2][..2], ["(others)", "7"]);
        assert!(text.contains("\nof 3: "), "{text}");
    }
}
