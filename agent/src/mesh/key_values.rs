//! `key=value` words, as annotations with several parts have them.

use std::fmt::Display;

/// Splits `a=1 b=2` into its pairs, in their order.
///
/// # Errors
///
/// A word without `=`, an empty key or value, a key that is there twice, one that is not `known`; and no word at all.
pub(super) fn pairs<'a>(text: &'a str, known: &[&str]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let (key, value) = word
            .split_once('=')
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .ok_or_else(|| format!("where \"{}\" is not KEY=VALUE", word.escape_debug()))?;
        if !known.contains(&key) {
            return Err(format!("where \"{}\" is none of {}", key.escape_debug(), known.join(", ")));
        }
        if pairs.iter().any(|(other, _)| *other == key) {
            return Err(format!("where \"{key}\" is there twice"));
        }
        pairs.push((key, value));
    }
    if pairs.is_empty() { Err(format!("which has none of {}", known.join(", "))) } else { Ok(pairs) }
}

/// A whole number within bounds; digits alone, as a sign or a blank is a slip.
pub(super) fn number(key: &str, value: &str, least: u32, most: u32) -> Result<u32, String> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| is_number && (least..=most).contains(number));
    number.ok_or_else(|| wrong(key, value, format_args!("a number from {least} to {most}")))
}

/// What is said of a value that is not what it should be.
pub(super) fn wrong(key: &str, value: &str, expected: impl Display) -> String {
    format!("where {key} is \"{}\", not {expected}", value.escape_debug())
}
