//! Who sends the spans: OpenTelemetry's resource, from the agent's place in its cluster and from the standard variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// Attributes by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Resource(BTreeMap<String, String>);

const SERVICE_NAME: &str = "service.name";
/// What the agent calls itself where nobody gave it another name.
const OWN_NAME: &str = "evenkeel";

impl Resource {
    /// The agent's own: `attributes` are what `OTEL_RESOURCE_ATTRIBUTES` holds, `service_name` is `OTEL_SERVICE_NAME`'s, which goes before
    /// theirs.
    ///
    /// # Errors
    /// Attributes that are none.
    pub fn new(attributes: Option<&str>, service_name: Option<&str>) -> Result<Self, String> {
        let mut resource = BTreeMap::from([
            (SERVICE_NAME.to_owned(), OWN_NAME.to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        for pair in attributes.unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = parse(pair).ok_or_else(|| {
                format!("OTEL_RESOURCE_ATTRIBUTES: {:?}: expected KEY=VALUE,…, with other characters percent-encoded", pair.trim())
            })?;
            resource.insert(key, value);
        }
        if let Some(name) = service_name {
            resource.insert(SERVICE_NAME.to_owned(), name.to_owned());
        }
        Ok(Self(resource))
    }

    /// Adds what the agent knows of itself, unless the variables say it otherwise.
    pub fn add(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

fn parse(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    let key = percent_decoded(key.trim())?;
    (!key.is_empty()).then_some((key, percent_decoded(value.trim())?))
}

/// `%` and two digits stand for a byte.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, behind) = behind.split_at_checked(2)?;
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(resource: &Resource) -> Vec<(&str, &str)> {
        resource.iter().filter(|(key, _)| *key != "service.version").collect()
    }

    #[test]
    fn the_variables_go_before_what_the_agent_knows_and_the_name_before_the_attributes() {
        let mut plain = Resource::new(None, None).unwrap();
        plain.add("k8s.node.name", Some("n1"));
        plain.add("k8s.pod.uid", None);
        assert_eq!(all(&plain), [("k8s.node.name", "n1"), ("service.name", "evenkeel")]);
        let given = " k8s.node.name=n2 ,service.name=a,deployment.environment=pr%C3%B6d%2C1,";
        let mut told = Resource::new(Some(given), Some("b")).unwrap();
        told.add("k8s.node.name", Some("n1"));
        assert_eq!(
            all(&told),
            [("deployment.environment", "pröd,1"), ("k8s.node.name", "n2"), ("service.name", "b")]
        );
        assert_eq!(all(&Resource::new(Some("service.name=a"), None).unwrap()), [("service.name", "a")]);
    }

    #[test]
    fn what_is_no_attribute_is_named() {
        for bad in ["a", "=b", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff", "a=1,b"] {
            let refusal = Resource::new(Some(bad), None).unwrap_err();
            assert!(
                refusal.contains("OTEL_RESOURCE_ATTRIBUTES") && refusal.contains("KEY=VALUE"),
                "{refusal}"
            );
        }
    }
}
