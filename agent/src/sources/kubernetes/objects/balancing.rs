//! What a Service's annotations say about the choice of endpoints.

use super::super::labels;
use super::Remarks;
use super::metadata::{annotation, choice};
use crate::mesh::{Balancing, Ejection, Picker};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::fmt::Display;
use std::str::FromStr;

pub(super) fn balancing(metadata: &ObjectMeta, remarks: &mut Remarks) -> Balancing {
    let picker = choice(metadata, labels::PICKER, &Picker::NAMED, remarks).unwrap_or_default();
    let hash_on = parsed(metadata, labels::HASH_ON, remarks);
    if hash_on.is_some() && !picker.has_table() {
        remarks.push(format!(
            "annotation {} is for the pickers \"ring-hash\" and \"maglev\", and {} says neither: it has no effect",
            labels::HASH_ON,
            labels::PICKER
        ));
    }
    let ejection = choice(metadata, labels::EJECTION, &Ejection::NAMED, remarks).unwrap_or_default();
    Balancing { picker, hash_on: hash_on.unwrap_or_default(), ejection }
}

/// What an annotation says in a form of its own.
fn parsed<T: FromStr<Err: Display>>(metadata: &ObjectMeta, key: &str, remarks: &mut Remarks) -> Option<T> {
    let text = annotation(metadata, key)?;
    let remark =
        |error| format!("annotation {key} is \"{}\", {error}: as if it were not there", text.escape_debug());
    text.parse().map_err(|error| remarks.push(remark(error))).ok()
}
