//! What was counted of calls, against what their clients and servers saw: no call missing, none double, and each with its own status,
//! bytes and messages.

use super::World;
use super::story::{Ending, Oddity, messages_in};
use crate::http2::ErrorCode;
use crate::proxy::error_reply::status_of_reset;
use crate::telemetry::{CallCounts, CallKey, Flag};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

impl World {
    /// Every gRPC call has a path of its own, which is its method: its row is its own.
    pub(super) fn check_counts(&self) {
        let rows = self.telemetry.calls();
        for (index, (story, tally)) in self.stories.iter().zip(&self.tally).enumerate() {
            if !story.is_grpc || story.oddity == Some(Oddity::Connect) {
                continue;
            }
            let name = index.to_string();
            let own: Vec<_> = rows.iter().filter(|(key, _)| *key.method == *name).collect();
            let ending = tally.result.as_ref().expect("every call has ended");
            let said = format!("call {index}: {ending:?}\n{story:?}\n{tally:?}\n{own:?}");
            match own[..] {
                [(key, counts)] => self.check_row(index, ending, key, counts, &said),
                // The agent never saw it; or its headers ended a body that they said was to come, which is no request.
                [] => assert!(
                    matches!(
                        ending,
                        Ending::Cancelled | Ending::Lost | Ending::Reset(ErrorCode::RefusedStream)
                    ) || story.is_malformed_at_once() && *ending == Ending::Reset(ErrorCode::ProtocolError),
                    "a call is not counted: {said}"
                ),
                _ => panic!("a call is counted more than once: {said}"),
            }
        }
        self.check_others(&rows);
        let counters = self.engine.counters();
        let all: u64 = rows.iter().map(|(_, counts)| counts.calls()).sum();
        assert_eq!(all, counters.calls, "calls are missing or double");
        // However often a call was sent, by the agent's own rules or by the Service's policy.
        let attempts: u64 = rows.iter().map(|(_, counts)| counts.attempts).sum();
        let chosen: u64 = self.endpoints.iter().map(|endpoint| endpoint.load.calls.load(Relaxed)).sum();
        assert_eq!(attempts, chosen, "attempts are missing or double");
        // Each call that an endpoint was ever chosen for has one, and each further one has its reason.
        let sent = rows.iter().filter(|(key, _)| key.endpoint.is_some()).map(|(_, counts)| counts.calls());
        let again = counters.reconnects + counters.retries + counters.policy_retries;
        assert_eq!(attempts, sent.sum::<u64>() + again, "attempts without a reason: {counters:?}");
        let now = Instant::now();
        let groups = self.telemetry.call_sums(now).groups;
        assert_eq!(groups.iter().map(|(_, counts)| counts.calls()).sum::<u64>(), all, "by workloads");
        let sizes = self.telemetry.sizes(now);
        let sized = |sizes: &[u64]| sizes.iter().sum::<u64>();
        assert_eq!(sizes.iter().map(|(_, sizes)| sized(&sizes.request_sizes)).sum::<u64>(), all);
        assert_eq!(sizes.iter().map(|(_, sizes)| sized(&sizes.response_sizes)).sum::<u64>(), all);
    }

    fn check_row(&self, call: usize, ending: &Ending, key: &CallKey, counts: &CallCounts, said: &str) {
        let (story, tally) = (&self.stories[call], &self.tally[call]);
        assert_eq!(counts.calls(), 1, "{said}");
        assert_eq!(counts.request_messages, messages_in(call, counts.request_bytes), "{said}");
        assert_eq!(counts.response_messages, messages_in(call, counts.response_bytes), "{said}");
        assert!(counts.request_bytes >= tally.request_received as u64, "{said}");
        assert!(counts.request_bytes <= story.request_bytes as u64, "{said}");
        if tally.request_complete {
            assert_eq!(counts.request_bytes, story.request_bytes as u64, "{said}");
        }
        let status = key.status;
        assert!(counts.response_bytes >= tally.response_received as u64, "{said}");
        match *ending {
            Ending::Complete { http, grpc, by_agent } => {
                assert_eq!((status.http, status.grpc), (http, grpc), "{said}");
                assert_eq!(status.flag != Flag::None, by_agent, "{said}");
                assert_eq!(counts.response_bytes, tally.response_received as u64, "{said}");
                assert!(by_agent || key.endpoint.is_some(), "{said}");
            }
            Ending::Reset(code) => {
                assert_ne!(status.flag, Flag::None, "{said}");
                assert_eq!(status.grpc, Some(status_of_reset(code)), "as its client understands it: {said}");
            }
            // What it did not see may have been on its way. A status counts where the client could read it.
            Ending::Cancelled | Ending::Lost => {
                assert!(status.flag != Flag::None || status.grpc.is_some(), "{said}");
            }
        }
    }

    /// Those of which only sums are kept: what is no gRPC, or has no path.
    fn check_others(&self, rows: &[(CallKey, CallCounts)]) {
        let others = || rows.iter().filter(|(key, _)| key.method.is_empty());
        for status in [200, 431, 501, 502, 503, 504] {
            let counted: u64 =
                others().filter(|(key, _)| key.status.http == status).map(|(_, counts)| counts.calls()).sum();
            let is_one = |ending: &Ending| matches!(ending, Ending::Complete { http, .. } if *http == status);
            let seen = self.stories.iter().zip(&self.tally).filter(|(story, tally)| {
                let has_row = story.is_grpc && story.oddity != Some(Oddity::Connect);
                !has_row && tally.result.as_ref().is_some_and(is_one)
            });
            assert!(counted >= seen.count() as u64, "of status {status} {counted} were counted");
        }
        assert!(others().all(|(key, _)| !key.status.is_grpc || key.status.flag == Flag::Connect), "{rows:?}");
        let no_grpc = || others().filter(|(key, _)| !key.status.is_grpc);
        assert!(no_grpc().all(|(_, counts)| counts.request_messages + counts.response_messages == 0));
    }
}
