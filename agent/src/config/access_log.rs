//! The access log's flags.

use crate::telemetry::LoggedCalls;
use crate::telemetry::access_log::{AccessLogFormat, AccessLogTo};
use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;

/// What is told of single calls.
#[derive(Args, Clone, Debug)]
pub struct AccessLogArgs {
    /// A line for each call that is over: off, errors alone, or all
    #[arg(long, env = "EVENKEEL_ACCESS_LOG", value_name = "WHICH", value_enum, default_value = "off")]
    access_log: Which,
    /// The access log's lines as JSON or text
    #[arg(
        long,
        env = "EVENKEEL_ACCESS_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value = "json"
    )]
    access_log_format: AccessLogFormat,
    /// With --access-log all, how much of the calls without an error it has, from 0 to 1; errors it has always
    #[arg(long, env = "EVENKEEL_ACCESS_LOG_SAMPLE", value_name = "RATIO", default_value = "1", value_parser = parse_share)]
    access_log_sample: f64,
    /// Where the access log goes: stdout, or the path of a file, which may be moved away while it is written
    #[arg(long, env = "EVENKEEL_ACCESS_LOG_TO", value_name = "stdout|FILE", default_value = "stdout")]
    access_log_to: AccessLogTo,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// None
    // What YAML makes of a bare `off`, as in the chart's values.
    #[value(alias = "false")]
    Off,
    /// Those that end in an error
    Errors,
    /// Every one, or, of those without an error, a sample
    All,
}

/// The access log, if there is one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AccessLogConfig {
    /// Which calls.
    pub calls: LoggedCalls,
    /// How its lines look.
    pub format: AccessLogFormat,
    /// Where it goes.
    pub to: AccessLogTo,
}

impl AccessLogArgs {
    /// Checks what one flag alone cannot say.
    ///
    /// # Errors
    /// A sample of what is not logged at all.
    pub(super) fn check(self) -> Result<Option<AccessLogConfig>, String> {
        let calls = match self.access_log {
            Which::Off => return Ok(None),
            Which::Errors if self.access_log_sample < 1.0 => {
                return Err(format!(
                    "--access-log-sample {}: --access-log errors has no other calls: --access-log all has a sample of them",
                    self.access_log_sample
                ));
            }
            Which::Errors => LoggedCalls::Errors,
            Which::All => LoggedCalls::All(self.access_log_sample),
        };
        Ok(Some(AccessLogConfig { calls, format: self.access_log_format, to: self.access_log_to }))
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1, as 0.01".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        log: AccessLogArgs,
    }

    fn check(further: &[&str]) -> Result<Option<AccessLogConfig>, String> {
        let line = Line::try_parse_from(["evenkeel"].iter().chain(further));
        line.map_err(|error| error.to_string())?.log.check()
    }

    #[test]
    fn flags_say_which_calls_are_logged_or_what_is_wrong_with_them() {
        assert_eq!(check(&[]), Ok(None));
        assert_eq!(check(&["--access-log", "false"]), Ok(None));
        let calls = |further: &[&str]| check(further).map(|log| log.map(|log| log.calls));
        assert_eq!(calls(&["--access-log", "errors"]), Ok(Some(LoggedCalls::Errors)));
        assert_eq!(calls(&["--access-log", "all"]), Ok(Some(LoggedCalls::All(1.0))));
        let sampled = ["--access-log-sample", "0.25", "--access-log"];
        assert_eq!(calls(&[&sampled[..], &["all"]].concat()), Ok(Some(LoggedCalls::All(0.25))));
        assert_eq!(calls(&[&sampled[..], &["off"]].concat()), Ok(None), "switched off for a while");
        for (wrong, said) in [
            (&[&sampled[..], &["errors"]].concat()[..], "--access-log all"),
            (&["--access-log", "some"], "[possible values: off, errors, all]"),
            (&["--access-log-sample", "2"], "from 0 to 1"),
            (&["--access-log-sample", "NaN"], "from 0 to 1"),
            (&["--access-log-to", "access.log"], "from the root"),
            (&["--access-log-to", ""], "stdout"),
        ] {
            let refusal = calls(wrong).unwrap_err();
            assert!(refusal.contains(said), "{wrong:?}: {refusal}");
        }
    }
}
