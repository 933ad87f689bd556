//! `evenkeel top`: what happens now. Two [`sample`]s of what agents have counted, by the [`looker`], make
//! [`mod@rates`]; the [`screen`] draws them again and again, or, where nobody looks, they are printed once, for programs as a [`mod@document`].

mod document;
mod looker;
mod rates;
mod sample;
mod screen;

use super::output::{NamespaceArgs, Palette, ProgramOutputArgs, complain, print};
use super::reach::{self, ReachArgs};
use super::session;
use crate::telemetry::can_be_steered;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use document::document;
use looker::Looker;
use rates::{Order, in_order, rates};
use sample::Sample;
use screen::{Key, Screen};
use std::io::IsTerminal as _;
use std::pin::Pin;
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
    /// Looks twice, prints what happened between, and ends; as always with -o, and where the output is no terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    output: ProgramOutputArgs,
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
    /// Somebody looks on, and has keys.
    is_live: bool,
}

/// Runs it.
pub(super) fn run(args: TopArgs) -> Result<ExitCode> {
    session::run(watch(args))
}

async fn watch(args: TopArgs) -> Result<ExitCode> {
    let found = reach::find(&args.reach).await?;
    let is_batch = args.once || args.output.is_for_programs();
    let is_live = !is_batch && can_be_steered(&std::io::stdout()) && std::io::stdin().is_terminal();
    let namespace = args.namespace.chosen(found.namespace.as_deref());
    let view = View { by: args.by, order: args.sort, namespace, is_live };
    let every = Duration::from_secs(args.interval.into());
    let looker = Looker::new(args.reach, found);
    let begun = Instant::now();
    let (looker, before) = looker.look(view.by).await;
    if before.is_coarse() && matches!(view.by, By::Method | By::Pod) {
        bail!(
            "the agents do not count by method and by calling pod (/calls): --by service and --by endpoint are there"
        );
    }
    if before.nodes.is_empty() {
        before.complaints.iter().for_each(|complaint| complain(complaint));
        bail!("no agent has answered");
    }
    if is_live {
        return live(looker, before, view, every).await;
    }
    sleep_until(begun + every).await;
    let (_, mut after) = looker.look(view.by).await;
    // What is missing in either is missing in what happened between.
    let earlier = before.complaints.iter().filter(|complaint| !after.complaints.contains(complaint));
    let complaints: Vec<String> = earlier.chain(&after.complaints).cloned().collect();
    complaints.iter().for_each(|complaint| complain(complaint));
    let is_complete = complaints.is_empty();
    after.complaints = complaints;
    let lines = || in_order(rates(&before, &after, view.by, view.namespace.as_deref()), view.order);
    let said = args.output.is_for_programs().then(lines).map(|lines| document(&lines, view.by));
    let said = said.and_then(|document| args.output.for_programs(&document));
    print(&said.unwrap_or_else(|| page(&before, &after, &view, Palette::of_stdout())))?;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A look that is under way: the agents come back with what they say.
type Looking = Pin<Box<dyn Future<Output = (Looker, Sample)>>>;

/// Draws until a key ends it. Keys are heard while agents are asked, however long that takes.
async fn live(looker: Looker, first: Sample, mut view: View, every: Duration) -> Result<ExitCode> {
    let mut screen = Screen::take()?;
    screen.draw(LOOKING)?;
    let mut next = Instant::now() + every;
    let (mut resting, mut looking): (Option<Looker>, Option<Looking>) = (Some(looker), None);
    let (mut before, mut after) = (Some(first), None);
    let mut looks_by = view.by;
    loop {
        tokio::select! {
            // Who wants to leave is not to wait for an answer.
            biased;
            key = screen.key() => match key {
                Key::Quit => return Ok(ExitCode::SUCCESS),
                Key::Sort => view.order = view.order.next(),
                Key::By => {
                    let is_coarse = after.as_ref().or(before.as_ref()).is_some_and(Sample::is_coarse);
                    view.by = view.by.next(is_coarse);
                    // Other lines: what they were before is not known.
                    (before, after) = (None, None);
                    next = Instant::now();
                    screen.draw(LOOKING)?;
                }
                Key::Other => continue,
            },
            (looker, sample) = seen(&mut looking), if looking.is_some() => {
                (resting, looking) = (Some(looker), None);
                if looks_by == view.by {
                    before = after.take().or(before);
                    next = Instant::now() + if before.is_some() { every } else { Duration::ZERO };
                    after = Some(sample);
                }
            }
            () = sleep_until(next), if resting.is_some() => {
                looks_by = view.by;
                looking = resting.take().map(|looker| Box::pin(looker.look(view.by)) as Looking);
            }
        }
        if let (Some(before), Some(after)) = (&before, &after)
            && !screen.draw(&page(before, after, &view, Palette::of_stdout()))?
        {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

async fn seen(looking: &mut Option<Looking>) -> (Looker, Sample) {
    match looking {
        Some(look) => look.await,
        None => std::future::pending().await,
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

/// What is shown.
fn page(before: &Sample, after: &Sample, view: &View, palette: Palette) -> String {
    let lines = rates(before, after, view.by, view.namespace.as_deref());
    let mut text = rates::header(&lines, view, after, palette);
    let lines = in_order(lines, view.order);
    text.push_str(&rates::table(lines, view.by, view.namespace.is_none()).render(true, palette));
    text
}
