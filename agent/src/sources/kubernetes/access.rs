//! How the API server is reached: by the pod's service account, or as a kubeconfig says. Next: [`watch`](super::watch).
//!
//! A client is made anew for each try, from the files as they are then: tokens, client certificates and CAs are exchanged
//! under a running agent, and a client costs a millisecond.

use super::fault::Fault;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};
use tower_http::decompression::DecompressionLayer;

/// How long the API server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take to begin an answer: a consistent list waits for its cache for up to 3 s, and queues.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long a connection may be silent before it is probed, and how long a probe goes unanswered before the connection
/// counts as dead: a watch sends nothing, and would wait for a server that is gone until its time is over.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How many probes go unanswered.
const KEEPALIVE_PROBES: u32 = 3;

/// The most that is read of an answer that is one object: etcd's limit for one is 1.5 MiB.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Where the API server is, and who asks.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
}

impl Access {
    /// A client of this moment's files.
    ///
    /// # Errors
    /// [`Fault::Config`] where they can't be used.
    pub async fn client(&self) -> Result<Client, Fault> {
        let config = self.config().await.map_err(Fault::Config)?;
        client_of(&config).map_err(|error| Fault::Config(self.named(&error)))
    }

    async fn config(&self) -> Result<Config, String> {
        match &self.kubeconfig {
            None => Config::incluster().map_err(|error| self.named(&error)),
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| self.named(&error))?;
                if names_a_proxy(&kubeconfig, None) {
                    return Err(format!("{}: its proxy-url is not supported: take it out", path.display()));
                }
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.map_err(|error| self.named(&error))
            }
        }
    }

    fn named(&self, error: &dyn std::error::Error) -> String {
        let cause = chain(error);
        match &self.kubeconfig {
            Some(path) => format!("{}: {cause}", path.display()),
            None => format!("the pod's service account can't be used: {cause}"),
        }
    }
}

/// Whether the API server is to be reached through a proxy, in this context or the current one. To go past it would be another way
/// than was asked for.
pub(crate) fn names_a_proxy(kubeconfig: &Kubeconfig, context: Option<&str>) -> bool {
    let context = context.or(kubeconfig.current_context.as_deref());
    let context = kubeconfig.contexts.iter().find(|known| Some(&*known.name) == context);
    let cluster = context.and_then(|known| known.context.as_ref()).map(|context| &context.cluster);
    let cluster = kubeconfig.clusters.iter().find(|known| Some(&known.name) == cluster);
    let proxy = cluster.and_then(|known| known.cluster.as_ref()?.proxy_url.as_deref());
    proxy.is_some_and(|proxy| !proxy.is_empty())
}

/// kube's own stack, less its retries and its line in the log for each failure, as both are ours to decide, and with
/// probes for dead connections.
pub(crate) fn client_of(config: &Config) -> Result<Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE / KEEPALIVE_PROBES));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    connector.set_tcp_user_timeout(Some(2 * KEEPALIVE));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(DecompressionLayer::new())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// Sends a request; the answer's head has come, and says 2xx.
///
/// # Errors
/// What the API server says is wrong, or that it says nothing.
pub(super) async fn send(client: &Client, request: Request<Vec<u8>>) -> Result<Response<Body>, Fault> {
    let answer = timeout(ANSWER_LIMIT, client.send(request.map(Body::from))).await;
    let answer =
        answer.map_err(|_| Fault::unreachable("it does not answer"))?.map_err(|error| match error {
            kube::Error::Auth(error) => Fault::Config(chain(&error)),
            // Its own words say nothing more.
            kube::Error::Service(error) => Fault::unreachable(&chain(&*error)),
            error => Fault::unreachable(&chain(&error)),
        })?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let retry_after = head.headers.get(http::header::RETRY_AFTER);
    let retry_after =
        retry_after.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let text = read(body).await.unwrap_or_default();
    Err(Fault::of_answer(head.status, retry_after, &text))
}

/// Sends a request whose answer is one object.
///
/// # Errors
/// As [`send`]; [`Fault::Malformed`] for another answer.
pub(super) async fn object<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<T, Fault> {
    let text = read(send(client, request).await?.into_body()).await?;
    serde_json::from_slice(&text).map_err(|error| Fault::Malformed(error.to_string()))
}

async fn read(body: Body) -> Result<Vec<u8>, Fault> {
    let whole = timeout(ANSWER_LIMIT, Limited::new(body, MAX_ANSWER_BYTES).collect()).await;
    let whole = whole.map_err(|_| Fault::unreachable("it does not finish its answer"))?;
    Ok(whole.map_err(|error| Fault::unreachable(&chain(&*error)))?.to_bytes().into())
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}

/// A GET of a path with its query.
pub(super) fn get(path: &str, accept: &'static str) -> Result<Request<Vec<u8>>, Fault> {
    let request = Request::get(path).header(http::header::ACCEPT, accept).body(Vec::new());
    request.map_err(|error| Fault::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_asks_for_a_proxy_is_refused_and_not_passed_by() {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        for (proxy, accepted) in [("", true), (", proxy-url: \"http://127.0.0.1:3128\"", false)] {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\nusers: [{{name: u, user: {{}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:1\"{proxy}}}}}]\n\
                 contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
            );
            std::fs::write(&kubeconfig, text).unwrap();
            let client = Access { kubeconfig: Some(kubeconfig.clone()) }.client().await;
            match client {
                Ok(_) => assert!(accepted),
                Err(fault) => assert!(!accepted && fault.to_string().contains("proxy-url"), "{fault}"),
            }
        }
    }
}
