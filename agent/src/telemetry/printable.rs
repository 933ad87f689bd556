//! Text that others have made, on its way to a terminal, a log or a page: nothing in it steers the terminal, breaks a line, or turns what stands
//! beside it round.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::borrow::Cow;
use std::io;

/// Whether a character is more than something to look at: C0 and C1 control characters, which terminals obey, line separators, what takes no
/// room, and what changes the direction of writing (Unicode UAX #9, which "Trojan Source" is made of).
pub fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// The text in one word: what is more than something to look at is escaped as in Rust, white space too.
pub fn printable_word(text: &str) -> Cow<'_, str> {
    let is_plain = |character: char| !is_obeyed(character) && !character.is_whitespace();
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_plain(character) {
            true => escaped.push(character),
            false => escaped.extend(character.escape_unicode()),
        }
    }
    Cow::Owned(escaped)
}

/// JSON in one line, in which what is more than something to look at is escaped.
pub fn json_line(value: &impl Serialize) -> String {
    let mut line = Vec::with_capacity(512);
    let written = value.serialize(&mut Serializer::with_formatter(&mut line, Careful));
    match (written, String::from_utf8(line)) {
        (Ok(()), Ok(line)) => line,
        // Nothing that is told has keys that are no strings, and JSON is UTF-8.
        _ => "{}".to_owned(),
    }
}

/// Compact, as the usual one, which escapes no more than JSON asks for.
struct Careful;

impl Formatter for Careful {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| is_obeyed(*character)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            // All of them are within the first 65,536.
            write!(writer, "\\u{:04x}", u32::from(character))?;
            rest = &rest[at + character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through_and_nothing_is_lost() {
        let nasty = "a\u{1b}[31m\n\r\t\u{7f}\u{9b}31m\u{202e}z\u{2028}\"\\ü\u{1f600}";
        let line = json_line(&json!({ "path": nasty }));
        assert!(line.chars().all(|character| !is_obeyed(character)), "{line}");
        assert!(line.contains("\\u007f\\u009b31m\\u202ez\\u2028") && line.contains("ü\u{1f600}"), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["path"], nasty);
        let word = printable_word(nasty);
        assert!(word.chars().all(|character| !is_obeyed(character) && !character.is_whitespace()), "{word}");
        assert!(word.starts_with("a\\u{1b}[31m\\u{a}") && word.ends_with("\"\\ü\u{1f600}"), "{word}");
        assert_eq!(printable_word("a b"), "a\\u{20}b");
        assert!(matches!(printable_word("shop.Cart/Add"), Cow::Borrowed(_)));
        let unseen = "a\u{61c}\u{2060}\u{2064}\u{2066}\u{2069}\u{feff}b";
        assert_eq!(printable_word(unseen), "a\\u{61c}\\u{2060}\\u{2064}\\u{2066}\\u{2069}\\u{feff}b");
        assert_eq!(json_line(&unseen), r#""a\u061c\u2060\u2064\u2066\u2069\ufeffb""#);
    }
}
