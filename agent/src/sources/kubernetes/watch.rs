//! The watch of one kind: lists it, follows its changes, and goes on through whatever happens. Next:
//! [`store`](super::store), where its [`Report`]s go.
//!
//! kube's client does the talking. Its `runtime::watcher` is not used: it holds each page of a list as full objects (a list
//! from the server's cache is one page), does not fall back where there are no streaming lists, keeps trying a resource
//! version that was refused with 410 when the watch began, and swallows the bookmarks that say how fresh we are.

use super::access::{self, Access};
use super::fault::{Fault, Status};
use super::kinds::{Kind, Object};
use super::split::{Items, Lines};
use super::standing::Standing;
use super::version;
use super::wire::{Bookmark, Event, ListFrame, ListMark};
use crate::backoff::{Backoff, jittered, within};
use crate::mesh::ObjectName;
use crate::sources::intern::Interner;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

/// How long a watch is asked to last, before jitter: the server ends it then, and nodes do not come back in step.
const WATCH_FOR: Duration = Duration::from_secs(450);

/// Objects a page, where lists come in pages: client-go's number.
const PAGE_OBJECTS: u32 = 500;

/// How long a list may be silent before it is broken off; a server from before streaming lists never ends one.
const SILENT_LIST: Duration = Duration::from_secs(30);

/// How long a watch may be silent: the server marks its place once a minute.
const SILENT_WATCH: Duration = Duration::from_secs(150);

/// A watch that ends sooner, with nothing sent, has failed.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// A resource version expires for all nodes at once: over how long they list afresh.
const RELIST_OVER: Duration = Duration::from_secs(5);

/// A server that ends its watches before their time is on its way out, and all nodes turn to another: over how long.
const COME_BACK_OVER: Duration = Duration::from_secs(1);

/// So many streaming lists in a row that fall silent are taken for a server from before them, and not for a lost connection.
const SILENT_LISTS: u32 = 2;

/// For how long a server that refused a streaming list is asked for pages: it may be upgraded.
const PAGES_FOR: Duration = Duration::from_secs(3600);

/// What a watch has to say.
#[derive(Debug)]
pub(super) enum Report {
    /// A list begins: what it does not name until its end is gone.
    Listing,
    /// An object is there, or is another now.
    Object(Object),
    /// An object is gone.
    Gone(ObjectName),
    /// The list has come to its end.
    Listed,
    /// It does not get on.
    Fault(Fault),
    /// It gets on.
    Well,
}

/// The watch of one kind.
pub(super) struct Watch {
    pub(super) kind: &'static Kind,
    /// Its place among the kinds.
    pub(super) place: usize,
    pub(super) node: Arc<str>,
    pub(super) access: Access,
    pub(super) reports: mpsc::Sender<(usize, Vec<Report>)>,
    pub(super) standing: Standing,
    names: Interner,
    /// Everything up to here is known; `None`: a list is needed.
    version: Option<String>,
    /// How fresh a list has to be: any, at least as what was seen already, or (empty) the newest.
    at_least: String,
    /// Until when lists are asked for in pages.
    pages_until: Option<Instant>,
    /// More is known than at the last failure.
    got_on: bool,
    /// A fault was reported, and is not over.
    faulty: bool,
    /// Nothing is heard from the server.
    cut_off: bool,
    /// Another kind's watch has ended a pause of this one early since it last got on itself. Once: of a server that begins its answers and
    /// breaks them off, watches would wake one another for ever, and none would back off.
    was_woken: bool,
    /// Tells the other kinds' watches that the server is heard from again.
    heard: Arc<Notify>,
    /// Lists that became necessary since a watch was last seen to go on after one.
    relists: Backoff,
    /// That was reported as a fault: lists alone do not end it.
    keeps_expiring: bool,
    /// Streaming lists that fell silent in a row.
    silent_lists: u32,
    /// How long the last watch was asked to last.
    asked_for: Duration,
}

impl Watch {
    pub(super) fn new(
        place: usize,
        kind: &'static Kind,
        node: Arc<str>,
        access: Access,
        reports: mpsc::Sender<(usize, Vec<Report>)>,
        standing: Standing,
        heard: Arc<Notify>,
    ) -> Self {
        Self {
            kind,
            place,
            node,
            access,
            reports,
            standing,
            names: Interner::default(),
            version: None,
            at_least: "0".into(),
            pages_until: None,
            got_on: false,
            faulty: false,
            cut_off: false,
            was_woken: false,
            heard,
            relists: Backoff::default(),
            keeps_expiring: false,
            silent_lists: 0,
            asked_for: Duration::ZERO,
        }
    }

    /// Goes on for as long as somebody listens.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.reports.is_closed() {
            let began = Instant::now();
            let outcome = self.follow().await;
            if std::mem::take(&mut self.got_on) {
                backoff.reset();
            }
            self.standing.ended(outcome.is_err());
            let fault = match outcome {
                Ok(()) if began.elapsed() >= self.asked_for => {
                    // Also where nothing was there to be sent.
                    backoff.reset();
                    self.goes_on();
                    continue;
                }
                Ok(()) if began.elapsed() >= SHORTEST_WATCH => {
                    sleep(within(COME_BACK_OVER)).await;
                    continue;
                }
                Ok(()) => Fault::unreachable("it ends each watch at once"),
                Err(Fault::Expired) => {
                    // The list that expired was old itself; else what is wanted is not to be older than what is known.
                    self.at_least = self.version.take().unwrap_or_default();
                    if self.relists.is_fresh() {
                        self.relists.pause(None);
                        sleep(within(RELIST_OVER)).await;
                        continue;
                    }
                    Fault::Expired
                }
                Err(Fault::Behind) => {
                    (self.version, self.at_least) = (None, String::new());
                    Fault::Behind
                }
                Err(fault) => fault,
            };
            let is_expired = fault == Fault::Expired;
            let backoff = if is_expired { &mut self.relists } else { &mut backoff };
            let (first, asked) = (backoff.is_fresh(), fault.retry_after());
            let pause = backoff.pause(asked);
            self.keeps_expiring |= is_expired;
            self.cut_off = fault.is_of_connection();
            tracing::debug!(kind = self.kind.resource, ?pause, "{fault}");
            // A connection that breaks is nothing to tell anybody, if the next one holds. What is known to last is.
            if !first || fault.lasts() {
                self.faulty = true;
                self.report(vec![Report::Fault(fault)]).await;
            }
            self.pause(pause).await;
        }
    }

    /// Waits before the next try: not so long if another kind's watch hears from the server meanwhile.
    async fn pause(&mut self, pause: Duration) {
        let may_wake = self.cut_off && !self.was_woken;
        tokio::select! {
            () = sleep(pause) => {}
            () = self.heard.notified(), if may_wake => {
                self.was_woken = true;
                sleep(within(COME_BACK_OVER)).await;
            }
        }
    }

    /// Lists, if that is needed, and watches until the server ends it.
    async fn follow(&mut self) -> Result<(), Fault> {
        let client = self.access.client().await?;
        if self.version.is_none() {
            if self.streams_lists(&client).await? {
                match self.watch(&client, true).await {
                    Err(Fault::NoStreamingLists) => self.pages_until = Some(Instant::now() + PAGES_FOR),
                    outcome => return outcome,
                }
            }
            self.list(&client).await?;
        }
        self.watch(&client, false).await
    }

    async fn streams_lists(&mut self, client: &Client) -> Result<bool, Fault> {
        if self.pages_until.is_some_and(|until| Instant::now() < until) {
            return Ok(false);
        }
        // One that does not tell its version is taken for a recent one.
        match version::of(client).await {
            Ok(version) => Ok(version.has_streaming_lists()),
            Err(fault) if fault.is_of_connection() => Err(fault),
            Err(_) => Ok(true),
        }
    }

    /// Lists in pages.
    async fn list(&mut self, client: &Client) -> Result<(), Fault> {
        self.standing.lists(false);
        self.report(vec![Report::Listing]).await;
        let mut next = String::new();
        loop {
            // A page after the first is of the first's version.
            let place = match next.is_empty() {
                true if self.at_least.is_empty() => String::new(),
                true => format!("&resourceVersion={}", self.at_least),
                false => format!("&continue={next}"),
            };
            let (path, selection) = (self.kind.path(), self.kind.selection(&self.node));
            let path = format!("{path}?limit={PAGE_OBJECTS}{place}{selection}");
            let answer = access::send(client, access::get(&path, self.kind.list_form())?).await?;
            self.is_heard();
            let page = self.page(answer.into_body()).await?;
            if page.next.is_empty() {
                self.is_at(page.resource_version)?;
                self.report(vec![Report::Listed]).await;
                return Ok(());
            }
            next = page.next;
        }
    }

    async fn page(&mut self, mut body: Body) -> Result<ListMark, Fault> {
        let mut items = Items::default();
        while let Some(bytes) = self.read(&mut body, SILENT_LIST).await? {
            let (kind, names, mut reports) = (self.kind, &mut self.names, Vec::new());
            items.push(&bytes, |item| {
                reports.push(Report::Object(kind.read(item, names)?));
                Ok(())
            })?;
            self.report(reports).await;
        }
        let frame = items.frame().ok_or_else(|| Fault::unreachable("a list was broken off"))?;
        let list: ListFrame =
            serde_json::from_slice(frame).map_err(|error| Fault::Malformed(format!("a list: {error}")))?;
        Ok(list.metadata)
    }

    /// Watches until the server ends it; `listing`: beginning with the list.
    async fn watch(&mut self, client: &Client, mut listing: bool) -> Result<(), Fault> {
        let lasts = jittered(WATCH_FOR);
        let place = match (&self.version, listing) {
            (Some(version), false) => format!("&resourceVersion={version}"),
            _ => format!(
                "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={}",
                self.at_least
            ),
        };
        let (path, selection) = (self.kind.path(), self.kind.selection(&self.node));
        let seconds = lasts.as_secs();
        self.asked_for = Duration::from_secs(seconds);
        let path =
            format!("{path}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}{place}{selection}");
        let mut request = access::get(&path, self.kind.watch_form())?;
        // Each event of a compressed watch is a stream of its own, which decoders take for the end.
        request
            .headers_mut()
            .insert(http::header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        let mut body = access::send(client, request).await?.into_body();
        self.is_heard();
        self.standing.watches();
        if listing {
            self.standing.lists(true);
            self.report(vec![Report::Listing]).await;
        } else {
            self.is_well().await;
            self.standing.is_watching();
        }
        let (mut lines, mut marked) = (Lines::default(), false);
        loop {
            let silence = match (listing, marked) {
                (true, _) => SILENT_LIST,
                (false, true) => SILENT_WATCH,
                (false, false) => lasts + SILENT_LIST,
            };
            let bytes = match self.read(&mut body, silence).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) if listing => return Err(Fault::unreachable("a list was broken off")),
                Ok(None) => return Ok(()),
                Err(Fault::Silent) if listing => {
                    self.silent_lists += 1;
                    let is_old = self.silent_lists >= SILENT_LISTS;
                    return Err(if is_old { Fault::NoStreamingLists } else { Fault::Silent });
                }
                Err(fault) => return Err(fault),
            };
            let (mut reports, mut fault, was_listed) = (Vec::new(), Ok(()), !listing);
            lines.push(&bytes, |line| {
                if fault.is_ok() {
                    fault = self.event(line, &mut reports, &mut listing, &mut marked);
                }
                Ok(())
            })?;
            let listed = reports.iter().any(|report| matches!(report, Report::Listed));
            let goes_on = was_listed && (marked || !reports.is_empty());
            self.report(reports).await;
            if goes_on {
                self.goes_on();
            }
            if listed {
                self.silent_lists = 0;
            }
            if listed || goes_on {
                self.is_well().await;
            }
            fault?;
        }
    }

    fn event(
        &mut self,
        line: &[u8],
        reports: &mut Vec<Report>,
        listing: &mut bool,
        marked: &mut bool,
    ) -> Result<(), Fault> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let malformed = |error: serde_json::Error| Fault::Malformed(format!("an event: {error}"));
        let event: Event<'_> = serde_json::from_slice(line).map_err(malformed)?;
        let object = event.object.get();
        match &*event.kind {
            "ADDED" | "MODIFIED" => {
                let object = self.kind.read(object.as_bytes(), &mut self.names)?;
                if !*listing {
                    self.is_at(object.version.clone())?;
                }
                reports.push(Report::Object(object));
            }
            "DELETED" => {
                let object = self.kind.read(object.as_bytes(), &mut self.names)?;
                if !*listing {
                    self.is_at(object.version)?;
                }
                reports.push(Report::Gone(object.name));
            }
            "BOOKMARK" => {
                let Bookmark { metadata } = serde_json::from_str(object).map_err(malformed)?;
                *marked = true;
                if *listing && metadata.ends_list() {
                    *listing = false;
                    self.standing.is_watching();
                    reports.push(Report::Listed);
                }
                if !*listing {
                    self.is_at(metadata.resource_version)?;
                }
            }
            "ERROR" => {
                let status: Status = serde_json::from_str(object).map_err(malformed)?;
                return Err(Fault::of_status(&status, None));
            }
            // Of a later API: of no use without knowing it.
            _ => {}
        }
        Ok(())
    }

    /// The next bytes; `None`: the server has ended it.
    async fn read(&mut self, body: &mut Body, silence: Duration) -> Result<Option<bytes::Bytes>, Fault> {
        loop {
            let frame = timeout(silence, body.frame()).await;
            let frame = frame.map_err(|_| Fault::Silent)?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| Fault::unreachable(&access::chain(&error)))?;
            if let Ok(bytes) = frame.into_data() {
                self.standing.heard(bytes.len());
                return Ok(Some(bytes));
            }
        }
    }

    fn is_at(&mut self, version: String) -> Result<(), Fault> {
        if version.is_empty() {
            self.version = None;
            return Err(Fault::Malformed("an object without a resourceVersion".into()));
        }
        self.standing.is_at(&version);
        (self.got_on, self.was_woken) = (true, false);
        self.version = Some(version);
        Ok(())
    }

    /// A watch goes on from where it was: what it began with has not expired.
    fn goes_on(&mut self) {
        self.relists.reset();
        (self.keeps_expiring, self.was_woken) = (false, false);
    }

    fn is_heard(&mut self) {
        if std::mem::take(&mut self.cut_off) {
            self.heard.notify_waiters();
        }
    }

    async fn is_well(&mut self) {
        // A list that ends well says nothing of the watch that is to follow.
        if !self.keeps_expiring && std::mem::take(&mut self.faulty) {
            self.report(vec![Report::Well]).await;
        }
    }

    /// Nobody listens any more: it ends with the next turn.
    async fn report(&mut self, reports: Vec<Report>) {
        if !reports.is_empty() {
            let _ = self.reports.send((self.place, reports)).await;
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
