//! What each page of the admin endpoint is, for its OpenAPI description: the types that [`node`](super::node) answers with.

use super::look::{ConnectionsView, StreamsView};
use super::status::StatusView;
use super::view::{KernelView, PodStandingView, SnapshotView, WorkersView};
use crate::admin::Page;
use crate::config::AgentConfig;
use crate::control::explain::Explanation;
use crate::control::view::{EndpointView, ServiceView};
use crate::sources::Problem;
use crate::sources::kubernetes::KindView;
use schemars::{Schema, SchemaGenerator};

/// The schema of a page's answer.
pub(super) fn page_schema(page: Page, generator: &mut SchemaGenerator) -> Schema {
    match page {
        Page::Status => generator.subschema_for::<StatusView>(),
        Page::Pods => generator.subschema_for::<Vec<PodStandingView>>(),
        Page::Services => generator.subschema_for::<Vec<ServiceView>>(),
        Page::Endpoints => generator.subschema_for::<Vec<EndpointView>>(),
        Page::Connections => generator.subschema_for::<ConnectionsView>(),
        Page::Streams => generator.subschema_for::<StreamsView>(),
        Page::Snapshot => generator.subschema_for::<SnapshotView>(),
        Page::Workers => generator.subschema_for::<WorkersView>(),
        Page::Kernel => generator.subschema_for::<KernelView>(),
        Page::Source => generator.subschema_for::<Vec<KindView>>(),
        Page::Config => generator.subschema_for::<AgentConfig>(),
        Page::Explain => generator.subschema_for::<Explanation>(),
        Page::Problems => generator.subschema_for::<Vec<Problem>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin;
    use serde_json::Value;

    /// All `$ref`s in it.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(to)) = fields.get("$ref") {
                    found.push(to.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_description_leads_to_itself_alone_and_says_of_each_field_what_it_is() {
        let description = admin::openapi(page_schema);
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for to in found {
            let pointer = to.strip_prefix('#').unwrap_or_else(|| panic!("{to} leads elsewhere"));
            assert!(description.pointer(pointer).is_some(), "{to} leads nowhere");
        }
        let schemas = description["components"]["schemas"].as_object().unwrap();
        // The standard library's own says nothing of its two.
        let mut unsaid = Vec::new();
        for (name, schema) in schemas.iter().filter(|(name, _)| *name != "Duration") {
            for (field, what) in schema["properties"].as_object().into_iter().flatten() {
                if !what["description"].is_string() && !what["$ref"].is_string() {
                    unsaid.push(format!("{name}.{field}"));
                }
            }
        }
        assert!(unsaid.is_empty(), "{unsaid:?}");
    }
}
