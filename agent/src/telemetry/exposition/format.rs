//! The two text formats that Prometheus reads: all is written in the one, and becomes the other for who does not read it.

/// In which of Prometheus' two text formats a scrape is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older one, for who does not say that it reads OpenMetrics.
    Classic,
}

impl ScrapeFormat {
    /// The one that a scraper with such an `Accept` header reads.
    pub fn accepted(accept: Option<&str>) -> Self {
        let is_asked_for = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if is_asked_for { Self::OpenMetrics } else { Self::Classic }
    }

    /// What it is called in `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics text in the classic format: there a counter's and an information's suffix is a part of their names, also where they are
/// described, and there is no information but a gauge that is 1.
pub(super) fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        // The encoder describes first, and then says of what type it was.
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        let described = line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' '));
        let Some((name, kind)) = described else {
            classic.extend([line, "\n"]);
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            _ => ("", kind),
        };
        if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
            classic.extend(["# HELP ", name, suffix, " ", help, "\n"]);
        }
        classic.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::super::{Numbers, scrape};
    use super::*;
    use crate::telemetry::PathCount;
    use crate::telemetry::Telemetry;

    #[test]
    fn the_classic_format_has_suffixes_in_the_names_that_are_described_and_no_end() {
        let path = vec![PathCount { name: "retries", help: " Calls.", is_gauge: false, value: 8 }];
        let numbers = Numbers { path, ..Numbers::default() };
        let text = scrape(&numbers, &Telemetry::new(true), ScrapeFormat::Classic);
        for lines in [
            "# HELP evenkeel_proxy_retries_total Calls.\n# TYPE evenkeel_proxy_retries_total counter\nevenkeel_proxy_retries_total 8\n",
            "# HELP evenkeel_build_info The agent's version.\n# TYPE evenkeel_build_info gauge\nevenkeel_build_info{",
            "# TYPE evenkeel_ready gauge\nevenkeel_ready 0\n",
            "# TYPE istio_requests_total counter\n",
            "# TYPE rpc_client_call_duration_seconds histogram\n",
        ] {
            assert!(text.contains(lines), "{lines}\nis not in\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_classic_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(ScrapeFormat::accepted(Some(prometheus)), ScrapeFormat::OpenMetrics);
        assert_eq!(ScrapeFormat::accepted(Some("text/plain")), ScrapeFormat::Classic);
        assert_eq!(ScrapeFormat::accepted(None), ScrapeFormat::Classic);
    }
}
