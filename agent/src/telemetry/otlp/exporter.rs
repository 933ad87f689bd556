//! Sends spans to the collector: in batches, one at a time, again where that may help, and never at the cost of a call.

use super::collector::{Collector, Compression, Refusal, framed};
use super::encode::{self, WallClock};
use super::endpoint::Endpoint;
use super::headers::Headers;
use super::resource::Resource;
use super::stats::{TraceCounts, TraceStats};
use super::tls;
use crate::backoff::{Backoff, jittered_upward};
use crate::telemetry::traces::Span;
use crate::telemetry::{Inlet, PAUSE};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// Spans of a batch: OpenTelemetry's own default (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`), some hundred KiB.
const BATCH_SPANS: usize = 512;
/// How long a span waits for others: people look at a call that they have just made.
const BATCH_WITHIN: Duration = Duration::from_secs(1);
/// A batch that could not be sent for so long is given up: there are younger ones, which say more.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// As long as a collector may ask us to wait: the batch in hand is given up sooner, the next one waits.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// At the end, what is still there has so long: less than what is left of a pod's grace period when calls have drained.
const LAST_BATCHES_WITHIN: Duration = Duration::from_secs(5);
/// How often it is said that spans are not taken.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Where to and on whose behalf.
#[derive(Clone, Debug)]
pub struct Export {
    /// The collector.
    pub endpoint: Endpoint,
    /// Authorities for https, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// What goes with each batch.
    pub headers: Headers,
    /// Whether batches are made smaller.
    pub compression: Compression,
    /// Who sends.
    pub resource: Resource,
    /// SO_MARK of the sockets; `None`: no mark.
    pub mark: Option<u32>,
}

/// The task that sends spans.
#[derive(Debug)]
pub struct Exporter {
    counts: TraceCounts,
    ends: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Begins to send what comes out of the inlet. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Nobody to trust, where the endpoint is https.
    pub fn start(export: Export, spans: Inlet<Span>) -> Result<Self, String> {
        if export.endpoint.is_secure() {
            // For each connection they are read again.
            tls::Connector::trusting(export.ca_file.as_deref())?;
        }
        let counts = TraceCounts { stats: Arc::default(), dropped: spans.dropped() };
        let (ends, ending) = watch::channel(false);
        let sender = Sender {
            collector: Collector::new(export.clone()),
            endpoint: export.endpoint,
            resource: export.resource,
            compression: export.compression,
            counts: counts.clone(),
            backoff: Backoff::default(),
            complaint: Complaint::default(),
            ending,
        };
        let task = tokio::spawn(sender.run(spans));
        Ok(Self { counts, ends, task })
    }

    /// What becomes of the spans.
    pub fn counts(&self) -> TraceCounts {
        self.counts.clone()
    }

    /// Sends what is still there, for as long as that may take at the end.
    pub async fn end(mut self) {
        // The task may have panicked, and has said so.
        let _ = self.ends.send(true);
        if timeout(LAST_BATCHES_WITHIN, &mut self.task).await.is_err() {
            self.task.abort();
            warn!("the collector does not take the last spans in time: they are lost");
        }
    }
}

struct Sender {
    collector: Collector,
    endpoint: Endpoint,
    resource: Resource,
    compression: Compression,
    counts: TraceCounts,
    backoff: Backoff,
    complaint: Complaint,
    ending: watch::Receiver<bool>,
}

impl Sender {
    async fn run(mut self, mut spans: Inlet<Span>) {
        let mut batch = Vec::new();
        loop {
            // Also where the end came while a batch was filled or delivered.
            if *self.ending.borrow() {
                spans.close();
            }
            tokio::select! {
                biased;
                came = spans.next(&mut batch, BATCH_SPANS) => if came == 0 { return },
                _ = self.ending.wait_for(|ends| *ends), if !*self.ending.borrow() => continue,
            }
            self.fill(&mut batch, &mut spans).await;
            if !batch.is_empty() {
                let request = encode::request(&self.resource, &batch, WallClock::now());
                let message = framed(&request, self.compression);
                let size = batch.len() as u64;
                batch.clear();
                self.deliver(message, size).await;
            }
        }
    }

    /// Waits for more, until the batch is full, or its first span has waited long enough, or the end comes.
    async fn fill(&mut self, batch: &mut Vec<Span>, spans: &mut Inlet<Span>) {
        let until = Instant::now() + BATCH_WITHIN;
        while batch.len() < BATCH_SPANS && !*self.ending.borrow() && Instant::now() < until {
            self.pause(PAUSE).await;
            let most = BATCH_SPANS - batch.len();
            // What is there, without waiting for what is not.
            let _ = timeout(Duration::ZERO, spans.next(batch, most)).await;
        }
    }

    async fn deliver(&mut self, message: Bytes, size: u64) {
        let began = Instant::now();
        loop {
            let refusal = match self.collector.export(message.clone()).await {
                Ok(rejected) => {
                    let lost = rejected.spans.min(size);
                    self.stats().sent.fetch_add(size - lost, Relaxed);
                    self.stats().rejected.fetch_add(lost, Relaxed);
                    self.backoff.reset();
                    match lost {
                        0 => self.complaint.is_over(&self.endpoint),
                        _ => self.complaint.about(&self.endpoint, &self.counts, &rejected.why),
                    }
                    return;
                }
                Err(refusal) => refusal,
            };
            let Refusal { is_passing, not_before, why } = refusal;
            self.stats().failed_exports.fetch_add(1, Relaxed);
            debug!(collector = %self.endpoint, "a batch of {size} spans is not taken: {why}");
            if !is_passing {
                self.stats().failed.fetch_add(size, Relaxed);
                self.complaint.about(&self.endpoint, &self.counts, &why);
                // It answers, if only to say no: the next batch need not wait long, but does not go at a call's pace.
                self.backoff.reset();
                let pause = self.backoff.pause(None);
                self.pause(pause).await;
                return;
            }
            let asked = not_before.unwrap_or_default().min(LONGEST_ASKED);
            let pause = self.backoff.pause(None).max(jittered_upward(asked));
            if began.elapsed() + pause >= GIVE_UP_AFTER {
                self.stats().failed.fetch_add(size, Relaxed);
                self.complaint.about(&self.endpoint, &self.counts, &why);
                // For the next batch's sake.
                self.pause(pause).await;
                return;
            }
            self.complaint.about(&self.endpoint, &self.counts, &why);
            self.pause(pause).await;
        }
    }

    /// Waits, but at the end's coming no longer.
    async fn pause(&mut self, length: Duration) {
        if *self.ending.borrow() {
            return sleep(length).await;
        }
        tokio::select! {
            () = sleep(length) => {}
            _ = self.ending.wait_for(|ends| *ends) => {}
        }
    }

    fn stats(&self) -> &TraceStats {
        &self.counts.stats
    }
}

/// Says that spans are not taken, and not too often.
#[derive(Debug, Default)]
struct Complaint {
    said: Option<Instant>,
    /// It was said of the failure that goes on.
    is_open: bool,
}

impl Complaint {
    fn about(&mut self, endpoint: &Endpoint, counts: &TraceCounts, why: &str) {
        if self.said.is_some_and(|said| said.elapsed() < COMPLAIN_EVERY) {
            return;
        }
        (self.said, self.is_open) = (Some(Instant::now()), true);
        let (failed, dropped, rejected) = (counts.failed(), counts.dropped(), counts.rejected());
        warn!(collector = %endpoint, failed, dropped, rejected, "spans are not taken: {why}");
    }

    fn is_over(&mut self, endpoint: &Endpoint) {
        if std::mem::take(&mut self.is_open) {
            info!(collector = %endpoint, "spans are taken again");
        }
    }
}
