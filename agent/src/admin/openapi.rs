//! The OpenAPI 3.1 description of the endpoint, made of the table of paths and of the types that the answers are.

use super::accept::PPROF;
use super::filter::Parameter;
use super::log::LogView;
use super::page::{Leads, Page, ROUTES, Route};
use super::routes::IndexRow;
use super::tap::TapLine;
use crate::telemetry::CallsView;
use crate::telemetry::profile::{CpuProfile, HeapProfile};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Where schemas are within the description.
const SCHEMAS: &str = "/components/schemas";

/// Describes the endpoint; `page` says what a page's answer is.
pub fn openapi(page: impl Fn(Page, &mut SchemaGenerator) -> Schema) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let paths: Map<_, _> = ROUTES
        .iter()
        .map(|route| {
            let schema = match route.leads {
                Leads::Index => generator.subschema_for::<Vec<IndexRow>>().to_value(),
                Leads::Page(shown) => page(shown, &mut generator).to_value(),
                Leads::Calls => generator.subschema_for::<CallsView>().to_value(),
                Leads::Tap => generator.subschema_for::<TapLine>().to_value(),
                Leads::Log => generator.subschema_for::<LogView>().to_value(),
                Leads::Cpu => generator.subschema_for::<CpuProfile>().to_value(),
                Leads::Heap => generator.subschema_for::<HeapProfile>().to_value(),
                Leads::OpenApi => json!({ "type": "object" }),
            };
            (route.path.to_owned(), path_item(route, &schema))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Evenkeel's admin endpoint",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What one node's agent knows and does. Local to the node. Fields are added; those that are there keep \
                            their meaning. What is null or absent is not known, or does not apply.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": refusals(),
        },
    })
}

fn path_item(route: &Route, schema: &Value) -> Value {
    let parameters: Vec<_> =
        route.all_parameters().map(|of_route| parameter(of_route, route.needs(of_route))).collect();
    let description = match route.is_stream() {
        true => format!(
            "{}; each line is an object, or empty: a sign of life where none has come for a while",
            route.summary
        ),
        false => route.summary.to_owned(),
    };
    let operation = |method: &&str| {
        let mut operation = json!({
            "operationId": operation_id(route, method),
            "summary": route.summary,
            "parameters": parameters,
            "responses": {
                "200": {
                    "description": description,
                    "content": {
                        (route.json_type()): { "schema": schema },
                        "text/plain": { "schema": { "type": "string" } },
                    },
                },
                "400": { "$ref": "#/components/responses/BadRequest" },
                "403": { "$ref": "#/components/responses/Forbidden" },
                "406": { "$ref": "#/components/responses/NotAcceptable" },
                "503": { "$ref": "#/components/responses/Busy" },
            },
        });
        if route.is_profile() {
            let responses = &mut operation["responses"];
            // Folded stacks are text.
            let bytes = json!({ "schema": { "description": "profile.proto of pprof, compressed by gzip" } });
            responses["200"]["content"][PPROF] = bytes;
            responses["409"] = json!({ "$ref": "#/components/responses/Taken" });
            responses["501"] = json!({ "$ref": "#/components/responses/NotPossible" });
        }
        if *method != "GET" {
            operation["summary"] = "changes what is logged".into();
            operation["requestBody"] = json!({
                "required": true,
                "description": "A filter, as info,evenkeel::proxy=debug",
                "content": { "text/plain": { "schema": { "type": "string" } } },
            });
            operation["responses"]["413"] = json!({ "$ref": "#/components/responses/TooLarge" });
        }
        (method.to_ascii_lowercase(), operation)
    };
    Value::Object(route.methods.iter().map(operation).collect())
}

fn operation_id(route: &Route, method: &str) -> String {
    let path = route.path.trim_start_matches('/').replace(['/', '.'], "_");
    format!("{}_{}", method.to_ascii_lowercase(), if path.is_empty() { "index" } else { &path })
}

fn parameter(parameter: Parameter, is_required: bool) -> Value {
    json!({
        "name": parameter.name(),
        "in": "query",
        "required": is_required,
        "description": parameter.summary(),
        "schema": parameter.schema(),
    })
}

/// The answers that are no page: one line of text.
fn refusals() -> Value {
    let refusal = |description: &str| json!({ "description": description, "content": { "text/plain": { "schema": { "type": "string" } } } });
    json!({
        "BadRequest": refusal("A parameter that the path does not have, or a value that it cannot have; one line says what there is"),
        "Forbidden": refusal("Asked for under another name than a loopback one, or sent by a web page of another origin"),
        "NotAcceptable": refusal("Accept names neither JSON (application/x-ndjson where the answer goes on and on) nor text/plain"),
        "TooLarge": refusal("The body is larger than any filter"),
        "Taken": refusal("A profile by stack is being taken: ask again when it is done"),
        "NotPossible": refusal("The kernel, or this program, has no profile by stack; one line says why and what it takes"),
        "Busy": refusal("The agent is starting, stopping or busy: ask again"),
    })
}
