//! What is told of single calls: begun before the worker threads, and ended behind them.

use crate::config::AccessLogConfig;
use crate::telemetry::Audience;
use crate::telemetry::access_log::{AccessLog, AccessLogCounts};
use anyhow::Result;
use std::sync::Arc;

/// Who is told of single calls, and the access log, if there is one.
pub(super) struct Telling {
    pub(super) audience: Arc<Audience>,
    log: Option<AccessLog>,
}

impl Telling {
    /// Opens the access log, if one is wanted.
    pub(super) fn begin(config: Option<&AccessLogConfig>) -> Result<Self> {
        let Some(AccessLogConfig { calls, format, to }) = config else {
            return Ok(Self { audience: Arc::default(), log: None });
        };
        let (outlet, log) = AccessLog::start(*format, to)?;
        tokio::spawn(log.counts().tell_drops());
        Ok(Self { audience: Arc::new(Audience::with_log(*calls, outlet)), log: Some(log) })
    }

    /// What becomes of the access log's records; none, where there is no log.
    pub(super) fn counts(&self) -> AccessLogCounts {
        self.log.as_ref().map(AccessLog::counts).unwrap_or_default()
    }

    /// Ends the taps, and writes what the access log has been told.
    pub(super) async fn end(self) {
        self.audience.end_taps();
        if let Some(log) = self.log {
            log.end().await;
        }
    }
}
