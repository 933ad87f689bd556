//! The registry from which nodes pull: it answers for every registry that a manifest names, by the read-only half of the OCI
//! distribution specification.

use super::images::ImageStore;
use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;

/// Where it listens.
pub const REGISTRY_PORT: u16 = 5000;

/// Serves the store until the process ends.
///
/// # Errors
/// When the address is taken.
pub async fn serve(store: ImageStore, listen: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, Router::new().fallback(answer).with_state(store)).await?;
    Ok(())
}

async fn answer(State(store): State<ImageStore>, method: Method, uri: Uri) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    match wanted(&uri) {
        Some(Wanted::Version) => StatusCode::OK.into_response(),
        Some(Wanted::Manifest { registry, repository, reference }) => {
            match store.manifest(registry, repository, reference) {
                Some((descriptor, bytes)) => part(
                    descriptor["mediaType"].as_str().unwrap_or_default(),
                    descriptor["digest"].as_str().unwrap_or_default(),
                    bytes,
                ),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        Some(Wanted::Blob(digest)) => match store.blob(digest) {
            Some(bytes) => part("application/octet-stream", digest, bytes),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// axum itself leaves the body out where only the head was asked for.
fn part(media_type: &str, digest: &str, bytes: Vec<u8>) -> Response {
    let head = [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (header::HeaderName::from_static("docker-content-digest"), digest.to_owned()),
        (header::CONTENT_LENGTH, bytes.len().to_string()),
    ];
    (head, bytes).into_response()
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Version,
    Manifest { registry: &'a str, repository: &'a str, reference: &'a str },
    Blob(&'a str),
}

/// Containerd says in `ns` for which registry we stand.
fn wanted(uri: &Uri) -> Option<Wanted<'_>> {
    let path = uri.path().strip_prefix("/v2/")?;
    if path.is_empty() {
        return Some(Wanted::Version);
    }
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    if let Some((_, digest)) = path.rsplit_once("/blobs/") {
        return Some(Wanted::Blob(digest));
    }
    let (repository, reference) = path.rsplit_once("/manifests/")?;
    let parameters = uri.query().unwrap_or_default().split('&');
    let registry = parameters.filter_map(|parameter| parameter.strip_prefix("ns=")).next()?;
    Some(Wanted::Manifest { registry, repository, reference })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_part_of_an_image() {
        let uri = |text: &str| text.parse::<Uri>().expect("a URI");
        assert_eq!(wanted(&uri("/v2/")), Some(Wanted::Version));
        assert_eq!(wanted(&uri("/v2/a/b/blobs/sha256:1")), Some(Wanted::Blob("sha256:1")));
        assert_eq!(
            wanted(&uri("/v2/a/b/manifests/latest?ns=quay.io")),
            Some(Wanted::Manifest { registry: "quay.io", repository: "a/b", reference: "latest" })
        );
        assert_eq!(wanted(&uri("/v2/../manifests/passwd?ns=etc")), None);
        assert_eq!(wanted(&uri("/elsewhere")), None);
    }
}
