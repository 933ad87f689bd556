//! The bytes of an answer → its objects, as they come: the lines of a watch, the items of a list. However long the answer is,
//! one object of it is held at a time.

use super::fault::Fault;

/// The longest object: etcd takes 1.5 MiB, and JSON is somewhat longer than what etcd keeps.
const MAX_OBJECT_BYTES: usize = 16 << 20;

/// The longest part of a list that is not its items: a few fields.
const MAX_FRAME_BYTES: usize = 64 << 10;

/// A buffer that had to hold a large object is given back after it.
const KEPT_BYTES: usize = 256 << 10;

/// Splits at line ends.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Hands over each line that is whole now.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        mut line: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (whole, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.begun.is_empty() {
                line(whole)?;
            } else {
                extend(&mut self.begun, whole)?;
                line(&self.begun)?;
                clear(&mut self.begun);
            }
        }
        extend(&mut self.begun, bytes)
    }
}

/// Splits a list object into its items, and keeps the rest of it.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// The list without its items.
    frame: Vec<u8>,
    /// The item that has begun.
    item: Vec<u8>,
    place: Place,
    /// Open brackets and braces, of the frame or of the item.
    depth: u32,
    in_string: bool,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Frame,
    BetweenItems,
    Item,
}

impl Items {
    /// Hands over each item that is whole now.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut item: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        // Where the part of the open item begins that is not in the buffer yet.
        let mut from = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            match self.place {
                Place::Frame => {
                    let begins = byte == b'[' && !self.in_string && self.depth == 1 && self.is_at_items();
                    if self.frame.len() == MAX_FRAME_BYTES {
                        return Err(Fault::Malformed("a list with very long metadata".into()));
                    }
                    self.frame.push(byte);
                    self.step(byte);
                    if begins {
                        (self.place, self.depth) = (Place::BetweenItems, 0);
                    }
                }
                Place::BetweenItems => match byte {
                    b'{' => {
                        (self.place, self.depth, from) = (Place::Item, 1, at);
                    }
                    b']' => {
                        self.frame.push(byte);
                        (self.place, self.depth) = (Place::Frame, 1);
                    }
                    b',' | b' ' | b'\n' | b'\r' | b'\t' => {}
                    _ => return Err(Fault::Malformed("a list whose items are no objects".into())),
                },
                Place::Item => {
                    self.step(byte);
                    if self.depth == 0 {
                        let last = &bytes[from..=at];
                        if self.item.is_empty() {
                            item(last)?;
                        } else {
                            extend(&mut self.item, last)?;
                            item(&self.item)?;
                            clear(&mut self.item);
                        }
                        self.place = Place::BetweenItems;
                    }
                }
            }
        }
        if self.place == Place::Item {
            extend(&mut self.item, &bytes[from..])?;
        }
        Ok(())
    }

    /// The list without its items, if it has come to its end.
    pub(super) fn frame(&self) -> Option<&[u8]> {
        (self.place == Place::Frame && self.depth == 0 && !self.frame.is_empty()).then_some(&self.frame)
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether what comes next is the value of `items`.
    fn is_at_items(&self) -> bool {
        let before = self.frame.trim_ascii_end();
        before.strip_suffix(b":").is_some_and(|before| before.trim_ascii_end().ends_with(b"\"items\""))
    }
}

fn extend(buffer: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Fault> {
    if buffer.len() + bytes.len() > MAX_OBJECT_BYTES {
        return Err(Fault::Malformed(format!("an object of more than {MAX_OBJECT_BYTES} bytes")));
    }
    buffer.extend_from_slice(bytes);
    Ok(())
}

fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut into pieces of each length.
    fn in_pieces(text: &str, mut push: impl FnMut(usize, &[u8])) {
        for length in 1..=text.len() {
            for piece in text.as_bytes().chunks(length) {
                push(length, piece);
            }
        }
    }

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        let mut found: Vec<Vec<String>> = vec![];
        let (mut lines, mut of) = (Lines::default(), 0);
        in_pieces("{\"a\":1}\n\n{\"b\":2}\n{\"unfinished", |length, piece| {
            if of != length {
                (lines, of) = (Lines::default(), length);
                found.push(vec![]);
            }
            let keep = |line: &[u8]| {
                found.last_mut().unwrap().push(String::from_utf8(line.into()).unwrap());
                Ok(())
            };
            lines.push(piece, keep).unwrap();
        });
        for lines in found {
            assert_eq!(lines, [r#"{"a":1}"#, "", r#"{"b":2}"#]);
        }
    }

    #[test]
    fn items_come_out_whole_and_the_rest_stays_however_they_are_cut() {
        let list = r#"{"kind":"L","metadata":{"items":[1],"x":"\"items\":["}, "items" : [ {"a":"}]\\"},{"b":[{}]} ],
            "after":{"items":[2]}}"#;
        let (mut items, mut of, mut found) = (Items::default(), 0, vec![]);
        in_pieces(list, |length, piece| {
            if of != length {
                if of != 0 {
                    assert_eq!(found, [r#"{"a":"}]\\"}"#, r#"{"b":[{}]}"#]);
                    let frame: serde_json::Value = serde_json::from_slice(items.frame().unwrap()).unwrap();
                    assert_eq!(frame["items"], serde_json::json!([]));
                    assert_eq!(frame["metadata"]["x"], "\"items\":[");
                }
                (items, of, found) = (Items::default(), length, vec![]);
            }
            let keep = |item: &[u8]| {
                found.push(String::from_utf8(item.into()).unwrap());
                Ok(())
            };
            items.push(piece, keep).unwrap();
        });
    }

    #[test]
    fn what_has_no_end_is_refused_at_a_bound() {
        let refused = |bytes: &[u8]| {
            let mut items = Items::default();
            (0..=MAX_OBJECT_BYTES / bytes.len() + 2).any(|_| items.push(bytes, |_| Ok(())).is_err())
        };
        assert!(refused(&[b'['; 4096]));
        let mut items = Items::default();
        items.push(br#"{"items":[{"a":""#, |_| Ok(())).unwrap();
        assert!((0..=MAX_OBJECT_BYTES / 4096).any(|_| items.push(&[b'x'; 4096], |_| Ok(())).is_err()));
        let mut lines = Lines::default();
        assert!((0..=MAX_OBJECT_BYTES / 4096).any(|_| lines.push(&[b'x'; 4096], |_| Ok(())).is_err()));
    }
}
