//! What an API server sends around its objects: the events of a watch, bookmarks, the frame of a list.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Annotation of the bookmark that ends a streaming list.
const LIST_END: &str = "k8s.io/initial-events-end";

/// An event of a watch.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// What all objects, and bookmarks, have.
#[derive(Deserialize)]
pub(super) struct Bookmark {
    pub(super) metadata: Mark,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    pub(super) resource_version: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A list without its items.
#[derive(Deserialize)]
pub(super) struct ListFrame {
    pub(super) metadata: ListMark,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMark {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: String,
}

impl Mark {
    /// Whether the bookmark ends a streaming list.
    pub(super) fn ends_list(&self) -> bool {
        self.annotations.get(LIST_END).is_some_and(|value| value == "true")
    }
}
