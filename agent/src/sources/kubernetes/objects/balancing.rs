//! What a Service's annotations say about its calls.

use super::super::labels;
use super::Remarks;
use super::metadata::{annotation, choice};
use crate::mesh::{Balancing, Ejection, Endpoint, Picker};
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
    let slow_start = parsed(metadata, labels::SLOW_START, remarks).unwrap_or_default();
    let health_check = parsed(metadata, labels::HEALTH_CHECK, remarks).unwrap_or_default();
    let retry = parsed(metadata, labels::RETRY, remarks);
    let circuit_breaker = parsed(metadata, labels::CIRCUIT_BREAKER, remarks).unwrap_or_default();
    let hash_on = hash_on.unwrap_or_default();
    Balancing { picker, hash_on, ejection, slow_start, health_check, retry, circuit_breaker }
}

/// The weight of an EndpointSlice's endpoints.
pub(super) fn weight(metadata: &ObjectMeta, remarks: &mut Remarks) -> u32 {
    parsed::<Weight>(metadata, labels::WEIGHT, remarks).map_or(Endpoint::WEIGHT, |weight| weight.0)
}

struct Weight(u32);

impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        let weight = number.filter(|number| (1..=Endpoint::MOST_WEIGHT).contains(number)).map(Self);
        weight.ok_or_else(|| format!("not a number from 1 to {}", Endpoint::MOST_WEIGHT))
    }
}

/// What an annotation says in a form of its own.
fn parsed<T: FromStr<Err: Display>>(metadata: &ObjectMeta, key: &str, remarks: &mut Remarks) -> Option<T> {
    let text = annotation(metadata, key)?;
    let remark =
        |error| format!("annotation {key} is \"{}\", {error}: as if it were not there", text.escape_debug());
    text.parse().map_err(|error| remarks.push(remark(error))).ok()
}
