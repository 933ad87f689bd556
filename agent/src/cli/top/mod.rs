//! `evenkeel top`: what happens now. Two [`sample`]s of what agents have counted make [`mod@rates`]; the [`screen`] draws them again and again,
//! or, where nobody looks, they are printed once.

mod rates;
mod sample;
mod screen;

use super::output::{NamespaceArgs, Palette, print};
use super::reach::{self, Agent, ReachArgs};
use super::session;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use rates::{Order, rates};
use sample::{Sample, take};
use screen::{Key, Screen};
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What `evenkeel top` takes.
#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// What a line is
    #[arg(long, value_name = "WHAT", value_enum, default_value = "service")]
    by: By,
    /// What comes first; the key s goes on to the next
    #[arg(long, value_name = "COLUMN", value_enum, default_value = "calls")]
    sort: Order,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: u32,
    /// Looks twice, prints what happened between, and ends; as always where the output is no terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// What a line is.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A Service port
    Service,
    /// An endpoint of a Service port
    Endpoint,
    /// A method of a Service port
    Method,
    /// A pod that calls
    Pod,
}

/// What is shown before there are two samples.
const LOOKING: &str = "looking…\n";

/// What is looked at, and how it is shown.
struct View {
    by: By,
    order: Order,
    namespace: Option<String>,
}

/// Runs it.
pub(super) fn run(args: TopArgs) -> Result<ExitCode> {
    session::run(watch(args))
}

async fn watch(args: TopArgs) -> Result<ExitCode> {
    let found = reach::find(&args.reach).await?;
    let missing = found.missing.iter().map(|(node, why)| format!("{node}: {why}"));
    let missing: Vec<String> = missing.collect();
    let mut view =
        View { by: args.by, order: args.sort, namespace: args.namespace.chosen(found.namespace.as_deref()) };
    let (mut agents, limit) = (found.agents, args.reach.limit());
    let every = Duration::from_secs(args.interval.into());
    let mut before = look(&mut agents, limit, view.by, &missing).await;
    if before.is_coarse && matches!(view.by, By::Method | By::Pod) {
        bail!(
            "the agents do not count by method and by calling pod (/calls): --by service and --by endpoint are there"
        );
    }
    if before.counted.is_none() {
        before.complaints.iter().for_each(|complaint| eprintln!("evenkeel: {complaint}"));
        bail!("no agent has answered");
    }
    let is_live = !args.once && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !is_live {
        sleep_until(before.at + every).await;
        let after = look(&mut agents, limit, view.by, &missing).await;
        after.complaints.iter().for_each(|complaint| eprintln!("evenkeel: {complaint}"));
        print(&page(&before, &after, &view, Palette::of_stdout()))?;
        return Ok(if after.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut screen = Screen::take()?;
    screen.draw(LOOKING)?;
    let mut after = None;
    let mut next = before.at + every;
    loop {
        tokio::select! {
            () = sleep_until(next) => {
                let sample = look(&mut agents, limit, view.by, &missing).await;
                next = Instant::now() + every;
                if let Some(last) = after.replace(sample) {
                    before = last;
                }
            }
            key = screen.key() => match key {
                Key::Quit => return Ok(ExitCode::SUCCESS),
                Key::Sort => view.order = view.order.next(),
                Key::By => {
                    view.by = view.by.next(before.is_coarse);
                    // Other lines: what they were before is not known.
                    screen.draw(LOOKING)?;
                    before = look(&mut agents, limit, view.by, &missing).await;
                    after = None;
                    next = before.at + every;
                }
                Key::Other => continue,
            },
        }
        if let Some(after) = &after
            && !screen.draw(&page(&before, after, &view, Palette::of_stdout()))?
        {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

impl By {
    /// The next, of those that there are.
    fn next(self, is_coarse: bool) -> Self {
        match self {
            Self::Service => Self::Endpoint,
            Self::Endpoint if is_coarse => Self::Service,
            Self::Endpoint => Self::Method,
            Self::Method => Self::Pod,
            Self::Pod => Self::Service,
        }
    }
}

/// Asks all agents what they have counted.
async fn look(agents: &mut Vec<Agent>, limit: Duration, by: By, missing: &[String]) -> Sample {
    let (asked, mut sample) = take(std::mem::take(agents), limit, by).await;
    *agents = asked;
    sample.complaints.extend(missing.iter().cloned());
    sample
}

/// What is shown.
fn page(before: &Sample, after: &Sample, view: &View, palette: Palette) -> String {
    let lines = rates(before, after, view.by, view.namespace.as_deref());
    let mut text = rates::header(&lines, view.by, view.order, after, palette);
    text.push_str(&rates::table(lines, view.by, view.order, view.namespace.is_none()).render(true, palette));
    text
}
