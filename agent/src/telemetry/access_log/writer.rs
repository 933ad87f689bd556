//! The access log's thread: takes what is told in batches, and writes each in one go.

use super::Written;
use super::line::AccessLogFormat;
use super::sink::Sink;
use crate::telemetry::{CallRecord, Inlet, PAUSE};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Records that are written in one go: some hundred KiB of text.
const BATCH: usize = 1_024;

/// Writes until it is to end, or nobody can tell anything more, and all that was told is written.
pub(super) async fn write(
    mut inlet: Inlet<CallRecord>,
    mut end: oneshot::Receiver<()>,
    format: AccessLogFormat,
    mut sink: Sink,
    written: &Written,
) {
    let (mut batch, mut text) = (Vec::new(), String::new());
    let mut is_ending = false;
    loop {
        tokio::select! {
            // Also where calls end without a pause.
            biased;
            _ = &mut end, if !is_ending => {
                is_ending = true;
                inlet.close();
                continue;
            }
            taken = inlet.next(&mut batch, BATCH) => {
                if taken == 0 {
                    return;
                }
            }
        }
        text.clear();
        for record in &batch {
            format.write(record, &mut text);
        }
        // The thread has nothing else to do: it may take as long as it takes.
        let outcome = sink.write(text.as_bytes());
        let lines = match &outcome {
            Ok(()) => batch.len(),
            Err(partly) => text.as_bytes()[..partly.bytes].iter().filter(|byte| **byte == b'\n').count(),
        };
        written.lines.fetch_add(lines as u64, Relaxed);
        written.lost.fetch_add((batch.len() - lines) as u64, Relaxed);
        if let Err(partly) = outcome {
            *written.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(partly.error.to_string());
        }
        batch.clear();
        if !is_ending {
            tokio::select! {
                biased;
                _ = &mut end => {
                    is_ending = true;
                    inlet.close();
                }
                () = sleep(PAUSE) => {}
            }
        }
    }
}
