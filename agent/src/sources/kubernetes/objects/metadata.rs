//! What an object's metadata says: its name, and the labels and annotations that Evenkeel reads.

use super::super::labels;
use super::{Refusal, Remarks};
use crate::mesh::ObjectName;
use crate::sources::intern::Interner;
use crate::sources::rows::{Enabled, OnEnrol, Waypoint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// The longest name that Kubernetes allows (a DNS subdomain, RFC 1123).
const MAX_NAME_BYTES: usize = 253;

pub(super) fn object_name(metadata: &ObjectMeta, names: &mut Interner) -> Result<ObjectName, Refusal> {
    let name = checked_name(metadata)?.into();
    // What `kubectl apply` would make of an object without one.
    let namespace =
        metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    if !is_name(namespace) {
        return Err(format!(
            "has the namespace \"{}\", which can't be one: passed over",
            namespace.escape_debug()
        ));
    }
    Ok(ObjectName { namespace: names.intern(namespace), name })
}

pub(super) fn checked_name(metadata: &ObjectMeta) -> Result<&str, Refusal> {
    match metadata.name.as_deref() {
        Some(name) if is_name(name) => Ok(name),
        Some(name) if !name.is_empty() => {
            Err(format!("has the name \"{}\", which can't be one: passed over", name.escape_debug()))
        }
        _ => Err("has no metadata.name: passed over".into()),
    }
}

/// Whether this can be the name of an object: names go into log lines and error messages as they are.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
}

pub(super) fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(metadata.labels.as_ref(), key)
}

pub(super) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(metadata.annotations.as_ref(), key)
}

fn value<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    map?.get(key).map(String::as_str)
}

pub(super) fn enabled(metadata: &ObjectMeta, remarks: &mut Remarks) -> Enabled {
    match label(metadata, labels::ENABLED) {
        None => Enabled::Unset,
        Some("true") => Enabled::Yes,
        Some("false") => Enabled::No,
        Some(other) => {
            remarks.push(format!(
                "label {} is \"{}\", not \"true\" or \"false\": nothing is enrolled by it",
                labels::ENABLED,
                other.escape_debug()
            ));
            Enabled::Invalid(other.into())
        }
    }
}

pub(super) fn on_enrol(metadata: &ObjectMeta, remarks: &mut Remarks) -> Option<OnEnrol> {
    let known = [
        ("reconnect", OnEnrol::Reconnect),
        ("reconnect-missed", OnEnrol::ReconnectMissed),
        ("keep", OnEnrol::Keep),
    ];
    choice(metadata, labels::ON_ENROL, &known, remarks)
}

pub(super) fn with_mesh(metadata: &ObjectMeta, remarks: &mut Remarks) -> Option<bool> {
    choice(metadata, labels::WITH_MESH, &[("true", true), ("false", false)], remarks)
}

pub(super) fn waypoint(metadata: &ObjectMeta, names: &mut Interner) -> Waypoint {
    match label(metadata, labels::USE_WAYPOINT) {
        None | Some("") => Waypoint::Unset,
        Some("none") => Waypoint::None,
        Some(name) => Waypoint::Named(names.intern(name)),
    }
}

/// What an annotation says of a few words that it may say.
pub(super) fn choice<T: Copy>(
    metadata: &ObjectMeta,
    key: &str,
    known: &[(&str, T)],
    remarks: &mut Remarks,
) -> Option<T> {
    let text = annotation(metadata, key)?;
    let chosen = known.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if chosen.is_none() {
        let words: Vec<String> = known.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        remarks.push(format!(
            "annotation {key} is \"{}\", not {}: as if it were not there",
            text.escape_debug(),
            words.join(" or ")
        ));
    }
    chosen
}

/// Whether Istio's ambient mode is asked for (`istio.io/dataplane-mode`); `None` where nothing is said.
pub(super) fn ambient(metadata: &ObjectMeta) -> Option<bool> {
    label(metadata, labels::DATAPLANE_MODE).map(|mode| mode == "ambient")
}
