//! `/metrics`: what is counted, as text for Prometheus. It is made here, on the endpoint's own side: calls' counts are read where the worker
//! threads write them, and the control loop is asked for no more than its numbers.
//!
//! A node of many edges has some 50 MiB of it, and every pod of the cluster may ask: one text is made at a time, all who wait meanwhile
//! share the next, and no more than [`MOST_TEXTS`] are alive, whoever does not read.

use super::refusal::Refusal;
use crate::telemetry::{Numbers, ScrapeFormat, Telemetry, scrape};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a scrape may wait for the control loop's numbers: it is busy for milliseconds, or stuck.
const NUMBERS_WITHIN: Duration = Duration::from_secs(5);
/// Scrapes that the control loop has not come to. One asks at a time, but it may have gone.
const WAITING_SCRAPES: usize = 4;
/// Texts alive at once: the one that is made, and some that are being sent.
const MOST_TEXTS: usize = 3;
/// A text is followed by a rest of so many times what it took: whoever asks without end has a quarter of a CPU at most.
const REST: u32 = 3;
/// Of no more than this.
const MOST_REST: Duration = Duration::from_secs(2);

/// Where the control loop's numbers are to go; whoever asked may have gone.
pub type NumbersWanted = oneshot::Sender<Numbers>;

/// How scrapes ask the control loop.
pub fn scrapes() -> (mpsc::Sender<NumbersWanted>, mpsc::Receiver<NumbersWanted>) {
    mpsc::channel(WAITING_SCRAPES)
}

/// The metrics' routes.
pub fn metrics(numbers: mpsc::Sender<NumbersWanted>, telemetry: Arc<Telemetry>) -> Router {
    let now = Instant::now();
    let none = || Arc::new(Mutex::new(Last { began: now, text: Weak::new(), rests_until: now }));
    let texts = Arc::new(Semaphore::new(MOST_TEXTS));
    let scrapes = Scrapes { numbers, telemetry, last_open_metrics: none(), last_classic: none(), texts };
    Router::new().route("/metrics", get(show_metrics)).with_state(scrapes)
}

async fn show_metrics(State(scrapes): State<Scrapes>, headers: HeaderMap) -> Response {
    let format = ScrapeFormat::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    match scrapes.text(format).await {
        Some(text) => {
            ([(CONTENT_TYPE, format.content_type())], Bytes::from_owner(Shared(text))).into_response()
        }
        None => Refusal::busy().into_response(),
    }
}

#[derive(Clone, Debug)]
struct Scrapes {
    numbers: mpsc::Sender<NumbersWanted>,
    telemetry: Arc<Telemetry>,
    /// Each is held while a text of its format is made.
    last_open_metrics: Arc<Mutex<Last>>,
    last_classic: Arc<Mutex<Last>>,
    texts: Arc<Semaphore>,
}

/// The text that was made last.
#[derive(Debug)]
struct Last {
    /// What is in it was read after this.
    began: Instant,
    /// It goes with the last who reads it.
    text: Weak<Text>,
    rests_until: Instant,
}

#[derive(Debug)]
struct Text {
    text: String,
    _room: OwnedSemaphorePermit,
}

struct Shared(Arc<Text>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

impl Scrapes {
    /// What is counted now, or `None` if that is not to be had. Where [`MOST_TEXTS`] are being read, it is the youngest of them.
    async fn text(&self, format: ScrapeFormat) -> Option<Arc<Text>> {
        let arrived = Instant::now();
        let last = match format {
            ScrapeFormat::OpenMetrics => &self.last_open_metrics,
            ScrapeFormat::Classic => &self.last_classic,
        };
        let mut last = Arc::clone(last).lock_owned().await;
        if last.began >= arrived
            && let Some(text) = last.text.upgrade()
        {
            return Some(text);
        }
        sleep_until(last.rests_until).await;
        let Ok(room) = Arc::clone(&self.texts).try_acquire_owned() else {
            // Whose room would be free if it were gone.
            return last.text.upgrade();
        };
        let began = Instant::now();
        let (answer, answered) = oneshot::channel();
        self.numbers.try_send(answer).ok()?;
        let numbers = timeout(NUMBERS_WITHIN, answered).await.ok()?.ok()?;
        let telemetry = Arc::clone(&self.telemetry);
        // It ends though nobody may wait for it any more: with it goes the turn.
        let made = spawn_blocking(move || {
            let text = Arc::new(Text { text: scrape(&numbers, &telemetry, format), _room: room });
            let took = began.elapsed();
            *last = Last {
                began,
                text: Arc::downgrade(&text),
                rests_until: Instant::now() + (took * REST).min(MOST_REST),
            };
            text
        });
        made.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tower::ServiceExt as _;

    /// An endpoint, and how often it has asked the control loop.
    fn endpoint() -> (Router, Arc<AtomicUsize>) {
        let (ask, mut asked) = scrapes();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Some(answer) = asked.recv().await {
                counted.fetch_add(1, SeqCst);
                let _ = answer.send(Numbers::default());
            }
        });
        (metrics(ask, Arc::new(Telemetry::new(false))), count)
    }

    async fn scraped(endpoint: &Router) -> Bytes {
        let request = Request::get("/metrics").header(ACCEPT, "application/openmetrics-text");
        let request = request.body(Body::empty()).unwrap();
        let answer = endpoint.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn all_who_wait_share_one_text_that_is_younger_than_their_question() {
        let (endpoint, asked) = endpoint();
        let all: Vec<_> = (0..50)
            .map(|_| {
                let endpoint = endpoint.clone();
                tokio::spawn(async move { scraped(&endpoint).await })
            })
            .collect();
        let mut texts = Vec::new();
        for one in all {
            texts.push(one.await.unwrap());
        }
        // One that began after all had come, and before it perhaps the first's own.
        assert!((1..=2).contains(&asked.load(SeqCst)), "{asked:?}");
        assert!(texts.iter().all(|text| text.ends_with(b"# EOF\n")));
        let now = scraped(&endpoint).await;
        assert!(
            texts.iter().all(|text| text.as_ptr() != now.as_ptr()),
            "who comes later gets what is so then"
        );
    }

    #[tokio::test]
    async fn who_does_not_read_keeps_some_texts_and_keeps_nobody_from_the_youngest() {
        let (endpoint, asked) = endpoint();
        let mut unread = Vec::new();
        for _ in 0..10 {
            unread.push(scraped(&endpoint).await);
        }
        assert_eq!(asked.load(SeqCst), MOST_TEXTS);
        let mut places: Vec<_> = unread.iter().map(|text| text.as_ptr()).collect();
        assert_eq!(places[MOST_TEXTS..].iter().filter(|place| **place != places[MOST_TEXTS - 1]).count(), 0);
        places.dedup();
        assert_eq!(places.len(), MOST_TEXTS);
        unread.remove(0);
        scraped(&endpoint).await;
        assert_eq!(asked.load(SeqCst), MOST_TEXTS + 1);
    }
}
