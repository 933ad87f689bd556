//! What cells are made of.

use crate::admin::table::Table;
use serde_json::Value;

pub(super) const KIB: f64 = 1_024.0;
pub(super) const MIB: f64 = 1_048_576.0;

/// The rows of a list.
pub(super) fn rows(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.as_array().into_iter().flatten()
}

/// A field, as it stands in a cell.
pub(super) fn cell(row: &Value, field: &str) -> String {
    word(&row[field])
}

/// A value, as it stands in a cell.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(word).collect::<Vec<_>>().join(", "),
        Value::Object(_) => value.to_string(),
    }
}

/// A field in another unit, with one decimal.
pub(super) fn scaled(row: &Value, field: &str, unit: f64) -> String {
    row[field].as_f64().map(|number| format!("{:.1}", number / unit)).unwrap_or_default()
}

/// An object without some of its fields.
pub(super) fn without(answer: &Value, fields: &[&str]) -> Value {
    let mut answer = answer.clone();
    if let Value::Object(all) = &mut answer {
        all.retain(|field, _| !fields.contains(&field.as_str()));
    }
    answer
}

/// An object, one line for each of its values; those within another by both names.
pub(super) fn names_and_values(answer: &Value) -> String {
    let mut table = Table::new(&["NAME", "VALUE"]);
    let mut left: Vec<(String, &Value)> = vec![(String::new(), answer)];
    while let Some((name, value)) = left.pop() {
        let below = |inner: &str| if name.is_empty() { inner.to_owned() } else { format!("{name}.{inner}") };
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                left.extend(fields.iter().rev().map(|(inner, value)| (below(inner), value)));
            }
            Value::Array(values) if values.iter().any(Value::is_object) => {
                let numbered = values.iter().enumerate().rev();
                left.extend(numbered.map(|(index, value)| (below(&index.to_string()), value)));
            }
            Value::Object(_) => table.row([name, String::new()]),
            _ => table.row([name, word(value)]),
        }
    }
    table.render()
}
