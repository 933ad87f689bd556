//! `/profile/cpu` and `/profile/heap` by stack. To take and to name one blocks, and is done beside everything else: one at a time, so that who
//! asks without end has no more than that.

use super::accept::PPROF;
use super::filter::Filter;
use super::page::Leads;
use super::refusal::Refusal;
use crate::telemetry::profile::{StackFormat, cpu_stacks, heap_stacks};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// Held while a profile is taken and named.
static TURN: Mutex<()> = Mutex::new(());

/// Takes the profile that is asked for; where nobody waits for it any more, no further.
pub(super) async fn answer(leads: Leads, filter: &Filter, format: StackFormat) -> Result<Response, Refusal> {
    let time = Duration::from_secs(filter.seconds.into());
    let (teller, told) = oneshot::channel();
    spawn_blocking(move || {
        let taken = take(leads, time, format, || teller.is_closed());
        let _ = teller.send(taken);
    });
    let profile = told.await.map_err(|_| Refusal::busy())??;
    Ok(match format {
        StackFormat::Folded => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], profile).into_response(),
        StackFormat::Pprof => {
            let file = match leads {
                Leads::Heap => "attachment; filename=\"heap.pb.gz\"",
                _ => "attachment; filename=\"cpu.pb.gz\"",
            };
            ([(CONTENT_TYPE, PPROF), (CONTENT_DISPOSITION, file)], profile).into_response()
        }
    })
}

fn take(
    leads: Leads,
    time: Duration,
    format: StackFormat,
    has_gone: impl Fn() -> bool,
) -> Result<Vec<u8>, Refusal> {
    let _turn = match TURN.try_lock() {
        Ok(turn) => turn,
        // It guards nothing that could be half done.
        Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        Err(TryLockError::WouldBlock) => {
            let message = "another profile by stack is being taken: ask again when it is done";
            return Err(Refusal::new(StatusCode::CONFLICT, message));
        }
    };
    let not_possible = |why: String| Refusal::new(StatusCode::NOT_IMPLEMENTED, why);
    if has_gone() {
        return Err(Refusal::busy());
    }
    let profile = match leads {
        Leads::Heap => heap_stacks()
            .ok_or_else(|| not_possible("this program's allocator takes no samples".to_owned()))?,
        _ => cpu_stacks(time, &has_gone).map_err(|refused| not_possible(refused.to_string()))?,
    };
    // To name it is the larger part of the work.
    if has_gone() {
        return Err(Refusal::busy());
    }
    let written = profile.write(format);
    written.map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read /proc: {error}"))
    })
}
