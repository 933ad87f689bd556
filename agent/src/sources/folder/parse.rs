//! A file's text → rows. Each document is read twice: for what it is, and then as that.

use crate::sources::intern::Interner;
use crate::sources::kubernetes::objects::{self, Refusal, Remarks};
use crate::sources::rows::Row;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MessageFormatter, Options, Spanned, UserMessageFormatter};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How many scalars, lists and maps one document may hold: a `List` of a large cluster's EndpointSlices, several times over.
const MAX_DOCUMENT_NODES: usize = 20_000_000;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub objects: Vec<Placed>,
    pub remarks: Vec<Remark>,
}

/// An object of the file.
#[derive(Debug)]
pub(super) struct Placed {
    pub row: Row,
    /// `Kind namespace/name`.
    pub name: String,
    pub line: u64,
}

/// Something that was left out.
#[derive(Debug)]
pub(super) struct Remark {
    pub line: Option<u64>,
    pub object: Option<String>,
    pub cause: String,
}

/// Why a file is broken.
#[derive(Debug)]
pub(super) struct Fault {
    pub line: Option<u64>,
    pub column: Option<u64>,
    pub cause: String,
}

/// Turns a file into rows, if all of it can be read.
pub(super) fn parse(bytes: &[u8], names: &mut Interner) -> Result<Contents, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64;
        Fault { line: Some(line), column: None, cause: "it is not UTF-8 text".into() }
    })?;
    let mut contents = Contents::default();
    let mut passed_over = BTreeMap::new();
    for document in documents(text) {
        document.read(names, &mut contents, &mut passed_over)?;
    }
    if !passed_over.is_empty() {
        let kinds: Vec<String> = passed_over.iter().map(|(kind, count)| format!("{kind} ×{count}")).collect();
        let cause = format!("passed over, as Evenkeel reads no such kinds: {}", kinds.join(", "));
        contents.remarks.push(Remark { line: None, object: None, cause });
    }
    Ok(contents)
}

/// A document, and how many lines of the file are before it.
struct Document<'a> {
    lines_before: u64,
    text: &'a str,
}

/// The documents of a text. A line that begins with `---` is always a marker (YAML 1.2.2, rule 206, `c-forbidden`), so no
/// parser is needed to find them, and each can be read on its own.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut begun) = (0, 0, false);
    let (mut at, mut line) = (0, 0);
    for line_text in text.split_inclusive('\n') {
        let bare = line_text.trim_end();
        let marker = bare == "---" || bare.starts_with("--- ") || bare.starts_with("---\t");
        if marker && begun {
            documents.push(Document { lines_before: start_line, text: &text[start..at] });
            (start, start_line) = (at, line);
        }
        // Directives and comments before the marker belong to the document that it begins.
        begun |=
            marker || !(bare.is_empty() || bare.starts_with(['#', '%', '\u{feff}']) && bare != "\u{feff}---");
        at += line_text.len();
        line += 1;
    }
    documents.push(Document { lines_before: start_line, text: &text[start..] });
    documents
}

/// What of an object says what it is.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
}

/// The same of what a list holds.
#[derive(Deserialize)]
struct ListHead {
    #[serde(default)]
    items: Vec<Spanned<Head>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Namespace,
    Service,
    EndpointSlice,
    Pod,
    Node,
}

enum Object {
    Namespace(Box<Namespace>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Pod(Box<Pod>),
    Node(Box<Node>),
}

enum What {
    Known(Kind),
    List,
    Other(String),
}

impl Head {
    fn what(&self, within_list: bool) -> Result<What, &'static str> {
        let kind = self
            .kind
            .as_deref()
            .filter(|kind| !kind.is_empty())
            .ok_or("it is not an object of Kubernetes: it has no kind")?;
        let api_version = self
            .api_version
            .as_deref()
            .filter(|api_version| !api_version.is_empty())
            .ok_or("it is not an object of Kubernetes: it has no apiVersion")?;
        Ok(match (api_version, kind) {
            ("v1", "Namespace") => What::Known(Kind::Namespace),
            ("v1", "Service") => What::Known(Kind::Service),
            ("v1", "Pod") => What::Known(Kind::Pod),
            ("v1", "Node") => What::Known(Kind::Node),
            ("discovery.k8s.io/v1", "EndpointSlice") => What::Known(Kind::EndpointSlice),
            ("v1", "List" | "NamespaceList" | "ServiceList" | "PodList" | "NodeList")
            | ("discovery.k8s.io/v1", "EndpointSliceList")
                if !within_list =>
            {
                What::List
            }
            _ => What::Other(format!("{} ({})", kind.escape_debug(), api_version.escape_debug())),
        })
    }
}

impl Document<'_> {
    fn read(
        &self,
        names: &mut Interner,
        contents: &mut Contents,
        passed_over: &mut BTreeMap<String, usize>,
    ) -> Result<(), Fault> {
        let Some(head) = self.head()? else { return Ok(()) };
        match head.value.what(false).map_err(|cause| self.fault_at(&head, cause))? {
            What::Other(kind) => *passed_over.entry(kind).or_default() += 1,
            What::Known(kind) => {
                let object = self.deserialize(|deserializer| kind.deserialize(deserializer))?;
                self.add(&object, &head, names, contents);
            }
            What::List => {
                let list: ListHead = self.deserialize(|deserializer| ListHead::deserialize(deserializer))?;
                let mut kinds = Vec::with_capacity(list.items.len());
                for item in &list.items {
                    kinds.push(match item.value.what(true).map_err(|cause| self.fault_at(item, cause))? {
                        What::Known(kind) => Some(kind),
                        What::List => None,
                        What::Other(kind) => {
                            *passed_over.entry(kind).or_default() += 1;
                            None
                        }
                    });
                }
                let objects = self.deserialize(|deserializer| ListSeed(&kinds).deserialize(deserializer))?;
                let heads = list.items.iter().zip(&kinds).filter(|(_, kind)| kind.is_some());
                for (object, (head, _)) in objects.into_iter().zip(heads) {
                    self.add(&object, head, names, contents);
                }
            }
        }
        Ok(())
    }

    /// What the document is; `None` for one in which nothing is written.
    fn head(&self) -> Result<Option<Spanned<Head>>, Fault> {
        self.deserialize(|deserializer| Option::<Spanned<Head>>::deserialize(deserializer))
    }

    fn deserialize<T>(
        &self,
        read: impl for<'e> FnOnce(serde_saphyr::Deserializer<'_, 'e>) -> Result<T, serde_saphyr::Error>,
    ) -> Result<T, Fault> {
        serde_saphyr::with_deserializer_from_str_with_options(self.text, options(), read)
            .map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &serde_saphyr::Error) -> Fault {
        let location = error.location();
        Fault {
            line: location.map(|location| self.lines_before + location.line()),
            column: location.map(|location| location.column()),
            cause: one_line(&UserMessageFormatter.format_message(error.without_snippet())),
        }
    }

    fn fault_at(&self, head: &Spanned<Head>, cause: &str) -> Fault {
        Fault { line: Some(self.line(head)), column: None, cause: cause.into() }
    }

    fn line(&self, head: &Spanned<Head>) -> u64 {
        self.lines_before + head.referenced.line()
    }

    fn add(&self, object: &Object, head: &Spanned<Head>, names: &mut Interner, contents: &mut Contents) {
        let line = self.line(head);
        let name = object.name();
        let mut remarks = Remarks::new();
        match object.row(names, &mut remarks) {
            Ok(Some(row)) => contents.objects.push(Placed { row, name: name.clone(), line }),
            Ok(None) => {}
            Err(cause) => remarks.push(cause),
        }
        contents.remarks.extend(remarks.into_iter().map(|cause| Remark {
            line: Some(line),
            object: Some(name.clone()),
            cause,
        }));
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 4 * MAX_DOCUMENT_NODES,
            max_nodes: MAX_DOCUMENT_NODES,
            max_total_scalar_bytes: super::read::MAX_FILE_BYTES as usize,
        },
    }
}

/// A parser's message, of which parts come from the file, on one line of a log.
fn one_line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Object {
    fn name(&self) -> String {
        let (kind, metadata) = match self {
            Object::Namespace(object) => ("Namespace", &object.metadata),
            Object::Service(object) => ("Service", &object.metadata),
            Object::EndpointSlice(object) => ("EndpointSlice", &object.metadata),
            Object::Pod(object) => ("Pod", &object.metadata),
            Object::Node(object) => ("Node", &object.metadata),
        };
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let name = match self {
            Object::Namespace(_) | Object::Node(_) => name.to_owned(),
            _ => format!("{}/{name}", namespace.unwrap_or("default")),
        };
        format!("{kind} {}", one_line(&name))
    }

    fn row(&self, names: &mut Interner, remarks: &mut Remarks) -> Result<Option<Row>, Refusal> {
        Ok(Some(match self {
            Object::Namespace(object) => {
                Row::Namespace(Arc::new(objects::namespace(&object.metadata, names, remarks)?))
            }
            Object::Node(object) => Row::Node(Arc::new(objects::node(&object.metadata, names)?)),
            Object::Service(object) => Row::Service(Arc::new(objects::service(object, names, remarks)?)),
            Object::Pod(object) => Row::Pod(Arc::new(objects::pod(object, names, remarks)?)),
            Object::EndpointSlice(object) => match objects::slice(object, names, remarks)? {
                Some(row) => Row::Slice(Arc::new(row)),
                None => return Ok(None),
            },
        }))
    }
}

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object, D::Error> {
        Ok(match self {
            Kind::Namespace => Object::Namespace(Box::new(Namespace::deserialize(deserializer)?)),
            Kind::Service => Object::Service(Box::new(Service::deserialize(deserializer)?)),
            Kind::EndpointSlice => Object::EndpointSlice(Box::new(EndpointSlice::deserialize(deserializer)?)),
            Kind::Pod => Object::Pod(Box::new(Pod::deserialize(deserializer)?)),
            Kind::Node => Object::Node(Box::new(Node::deserialize(deserializer)?)),
        })
    }
}

/// Reads a list of which it is known what each item is.
struct ListSeed<'a>(&'a [Option<Kind>]);

/// Reads its items; those of other kinds are skipped.
struct ItemsSeed<'a>(&'a [Option<Kind>]);

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = Vec<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Object>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = Vec<Object>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Object>, A::Error> {
        let mut objects = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                objects = map.next_value_seed(ItemsSeed(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(objects)
    }
}

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Object>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<Object>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the objects of a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Object>, A::Error> {
        let mut objects = Vec::new();
        for kind in self.0 {
            let ended = || A::Error::custom("the list ended early");
            match kind {
                Some(kind) => objects.push(items.next_element_seed(*kind)?.ok_or_else(ended)?),
                None => {
                    items.next_element::<IgnoredAny>()?.ok_or_else(ended)?;
                }
            }
        }
        Ok(objects)
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
