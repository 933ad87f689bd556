//! The program's own log: what is logged can be changed while it runs.

use super::bears_colours;
use std::fmt;
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The filter that the log goes by: one a process, as the log itself.
static FILTER: OnceLock<Running> = OnceLock::new();

/// The words that stand for how much is logged.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

struct Running {
    handle: reload::Handle<EnvFilter, Registry>,
    at_start: String,
}

/// How a line of the log looks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why a filter cannot be gone by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFilter(String);

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Begins to log, to standard error.
///
/// # Errors
/// A filter that is none.
pub fn start(filter: &str, format: LogFormat) -> Result<(), BadFilter> {
    let (filter_layer, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter_layer);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(bears_colours(&std::io::stderr()))).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    // `init` lets nobody come here twice.
    let _ = FILTER.set(Running { handle, at_start: filter.to_owned() });
    Ok(())
}

/// The filter that the log goes by now, and the one that it began with; `None` where nothing is logged.
pub fn filter() -> Option<(String, String)> {
    let running = FILTER.get()?;
    let now = running.handle.with_current(ToString::to_string).ok()?;
    Some((now, running.at_start.clone()))
}

/// Goes by another filter from now on.
///
/// # Errors
/// A filter that is none; there is no log.
pub fn set_filter(filter: &str) -> Result<(), BadFilter> {
    let parsed = parse(filter)?;
    let running = FILTER.get().ok_or_else(|| BadFilter("this program has begun no log".into()))?;
    running.handle.reload(parsed).map_err(|error| BadFilter(error.to_string()))
}

/// Reads a filter as `info,evenkeel::proxy=debug`.
fn parse(text: &str) -> Result<EnvFilter, BadFilter> {
    let expected =
        "expected error, warn, info, debug or trace, also per module, as info,evenkeel::proxy=debug";
    let parts = || text.split(',').map(str::trim);
    if parts().any(str::is_empty) {
        return Err(BadFilter(format!("an empty filter would log nothing: {expected}")));
    }
    // The parser takes a lone word that is no level for a module, which would then be all that is logged: a slip would end the log.
    for word in parts().filter(|word| !word.contains('=')) {
        let typed = word.to_lowercase();
        if !LEVELS.contains(&typed.as_str()) {
            let alike = |level: &&&str| strsim::damerau_levenshtein(&typed, level) == 1;
            let hint = match LEVELS.iter().find(alike) {
                Some(level) => format!("did you mean {level}?"),
                None => format!("a module is given with one, as {word}=debug; {expected}"),
            };
            return Err(BadFilter(format!("{word:?} is no level: {hint}")));
        }
    }
    let text = parts().collect::<Vec<_>>().join(",");
    EnvFilter::try_new(text).map_err(|error| BadFilter(format!("{error}: {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_understood_or_its_fault_is_named() {
        for good in ["info", "INFO", "off", "warn,evenkeel::proxy=debug", "h2=trace, info"] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good).err());
        }
        for (bad, said) in [
            ("", "empty"),
            ("info,", "empty"),
            ("inof", "did you mean info?"),
            ("wran,evenkeel=debug", "did you mean warn?"),
            ("loud", "is given with one, as loud=debug"),
            ("info,evenkeel", "as evenkeel=debug"),
            ("evenkeel=loud", "expected error, warn"),
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains(said), "{bad}: {error}");
        }
    }
}
