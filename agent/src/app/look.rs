//! `/connections` and `/streams`: what the worker threads have open at the moment. The control loop passes the question on and does
//! not wait for the answers; a thread that hangs is named in its place.

use crate::admin::Filter;
use crate::proxy::Workers;
use crate::proxy::look::{CallView, ConnectionView, Shown, Wanted};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// A worker that turns answers within a turn, which takes milliseconds; one that has not by now hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How much of what there is was shown.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Completeness {
    /// How many there are, of those that were asked for.
    total: usize,
    /// There are more than are shown: ask for fewer (`pod`, `service`, `method`), or say a higher `limit`.
    cut: bool,
    /// Worker threads, counted from 0, that have not answered within a second: theirs are missing.
    silent_workers: Vec<usize>,
}

/// The connections of the worker threads, the oldest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConnectionsView {
    /// The connections.
    connections: Vec<ConnectionView>,
    #[serde(flatten)]
    completeness: Completeness,
}

/// The calls that are under way, the oldest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StreamsView {
    /// The calls.
    streams: Vec<CallView>,
    #[serde(flatten)]
    completeness: Completeness,
}

fn wanted(filter: &Filter) -> Wanted {
    let Filter { pod, service, tap, rows, .. } = filter.clone();
    Wanted { pod, service, method: tap.method, rows }
}

/// Asks the workers for their connections. The answer comes by itself.
pub(super) fn connections(workers: &Workers, filter: &Filter, answer: oneshot::Sender<Value>) {
    let (asked, rows) = (workers.look_at_connections(&wanted(filter)), filter.rows);
    tokio::spawn(async move {
        let older = |one: &ConnectionView, other: &ConnectionView| one.age_seconds > other.age_seconds;
        let (connections, completeness) = gather(asked, rows, ANSWER_WITHIN, older).await;
        // Whoever has asked may have gone.
        let _ = answer.send(crate::admin::json(ConnectionsView { connections, completeness }));
    });
}

/// Asks the workers for the calls that are under way. The answer comes by itself.
pub(super) fn streams(workers: &Workers, filter: &Filter, answer: oneshot::Sender<Value>) {
    let (asked, rows) = (workers.look_at_calls(&wanted(filter)), filter.rows);
    tokio::spawn(async move {
        let older = |one: &CallView, other: &CallView| one.age_ms > other.age_ms;
        let (streams, completeness) = gather(asked, rows, ANSWER_WITHIN, older).await;
        let _ = answer.send(crate::admin::json(StreamsView { streams, completeness }));
    });
}

async fn gather<T>(
    asked: Vec<oneshot::Receiver<Shown<T>>>,
    most: usize,
    within: Duration,
    is_older: impl Fn(&T, &T) -> bool,
) -> (Vec<T>, Completeness) {
    let until = Instant::now() + within;
    let (mut rows, mut total, mut silent_workers) = (Vec::new(), 0, Vec::new());
    for (worker, answer) in asked.into_iter().enumerate() {
        match timeout_at(until, answer).await {
            Ok(Ok(shown)) => {
                total += shown.total;
                rows.extend(shown.rows);
            }
            Ok(Err(_)) | Err(_) => silent_workers.push(worker),
        }
    }
    rows.sort_by(|one, other| is_older(other, one).cmp(&is_older(one, other)));
    rows.truncate(most);
    let cut = rows.len() < total;
    (rows, Completeness { total, cut, silent_workers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_hangs_is_named_and_what_is_cut_is_said() {
        let (fast, first) = oneshot::channel();
        let (_hangs, second) = oneshot::channel();
        let (ended, third) = oneshot::channel::<Shown<u32>>();
        drop(ended);
        fast.send(Shown { rows: vec![3, 9, 4], total: 7 }).unwrap();
        let within = Duration::from_millis(1);
        let (rows, completeness) =
            gather(vec![first, second, third], 2, within, |one, other| one > other).await;
        assert_eq!(rows, [9, 4]);
        let Completeness { total, cut, silent_workers } = completeness;
        assert_eq!((total, cut, silent_workers), (7, true, vec![1, 2]));
    }
}
