//! Header lists: decoded once, looked into by the owner, encoded again, without an allocation for a field.

use super::hpack::{hash, static_table};
use super::name::Name;

/// What a field costs beside its bytes (RFC 9113 §6.5.2, RFC 7541 §4.1).
pub(super) const FIELD_OVERHEAD: usize = 32;

/// A decoded header list (pseudo-header fields first) in one flat buffer. Made to be reused: [`FieldList::clear`] keeps
/// the capacity. It carries, unseen, what the decoder knows about each field and an encoder would have to work out.
#[derive(Default, Debug)]
pub struct FieldList {
    /// For each field its name, its value, and the value's Huffman form if it came in one.
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    size: usize,
    /// It is an excerpt of a list that has been let go.
    is_excerpt: bool,
}

/// How the sender represented a field, which binds whoever encodes it again (RFC 7541 §6.2).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Indexing {
    /// In a table, or to be put there: the encoder may do so too.
    Allowed,
    /// A literal without indexing.
    Without,
    /// A literal never to be indexed: a secret.
    Never,
}

#[derive(Copy, Clone, Debug)]
pub(super) struct Entry {
    /// Where the name starts in the list's bytes.
    pub(super) at: u32,
    pub(super) name_len: u32,
    pub(super) value_len: u32,
    /// Length of the value's Huffman form, 0 if there is none.
    pub(super) huffman_len: u32,
    pub(super) name_hash: u32,
    /// Of name and value.
    pub(super) hash: u32,
    pub(super) name: Name,
    pub(super) indexing: Indexing,
    /// The entry of the static table that is this very field; its bytes are there and not in the list. 0 if there is none.
    pub(super) whole_static: u8,
}

impl Entry {
    /// A field that is an entry of the static table.
    pub(super) fn of_static(index: u8) -> Self {
        STATIC_ENTRIES[usize::from(index) - 1]
    }

    const fn from_static(index: u8) -> Self {
        let field = static_table::entry(index);
        Self {
            at: 0,
            name_len: field.name.len() as u32,
            value_len: field.value.len() as u32,
            huffman_len: 0,
            name_hash: 0,
            hash: 0,
            name: field.known,
            indexing: Indexing::Allowed,
            whole_static: index,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.name_len as usize + self.value_len as usize + FIELD_OVERHEAD
    }
}

static STATIC_ENTRIES: [Entry; static_table::LEN as usize] = {
    let mut entries = [Entry::from_static(1); static_table::LEN as usize];
    let mut index = 1;
    while index <= static_table::LEN {
        entries[index as usize - 1] = Entry::from_static(index);
        index += 1;
    }
    entries
};

/// One field of a [`FieldList`].
#[derive(Copy, Clone, Debug)]
pub struct Field<'a> {
    /// The name, lower-case.
    pub name: &'a [u8],
    /// The value's bytes.
    pub value: &'a [u8],
    /// The sender said that no table may hold it (RFC 7541 §7.1.3), so it must not be logged either.
    pub never_indexed: bool,
    /// The name, if it is a well-known one.
    pub known: Name,
}

impl FieldList {
    /// An empty list; allocates with its first field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the fields, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.size = 0;
        self.is_excerpt = false;
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The list's size as RFC 9113 §6.5.2 counts: name + value + 32 for each field.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of heap behind the list.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| self.field(entry))
    }

    /// The value of the first field with that name; `None` for [`Name::Other`].
    #[must_use]
    pub fn find(&self, name: Name) -> Option<&[u8]> {
        self.position(name).map(|i| self.field(&self.entries[i]).value)
    }

    /// As [`Self::find`], with a number that is always the same for the same value, and guards nothing: others may have it too.
    #[must_use]
    pub fn find_hashed(&self, name: Name) -> Option<(&[u8], u32)> {
        self.position(name).map(|i| (self.field(&self.entries[i]).value, self.entries[i].hash))
    }

    /// Whether it is a HEAD request's. GET and POST, which nearly all are, are entries of the static table.
    pub(super) fn is_head(&self) -> bool {
        let method = self.entries.iter().find(|entry| entry.name == Name::Method);
        method.is_some_and(|entry| entry.whole_static == 0 && self.field(entry).value == b"HEAD")
    }

    /// Adds a field of the caller's own making: a lower-case name and a valid value.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let entry = self.own(Name::of(name), name, value);
        self.push_entry(entry);
    }

    /// Gives the first field with that name this value, or adds it. A pseudo-header field can only be replaced: a fresh
    /// one would stand behind the others. Nothing happens for [`Name::Other`].
    pub fn set(&mut self, name: Name, value: &[u8]) {
        match self.position(name) {
            Some(i) => {
                let mut entry = self.own(name, name.as_bytes(), value);
                if entry.whole_static == 0 {
                    // What its sender wants no table to hold, none is to hold with another value (RFC 7541 §6.2.3).
                    entry.indexing = self.entries[i].indexing;
                }
                self.size = self.size + entry.size() - self.entries[i].size();
                self.entries[i] = entry;
            }
            None if name == Name::Other => {}
            None => self.push(name.as_bytes(), value),
        }
    }

    /// Removes every field with that name; nothing happens for [`Name::Other`].
    pub fn remove(&mut self, name: Name) {
        if name == Name::Other {
            return;
        }
        let size = &mut self.size;
        self.entries.retain(|entry| {
            let stays = entry.name != name;
            if !stays {
                *size -= entry.size();
            }
            stays
        });
    }

    /// Becomes a copy of `other`, in the memory it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.bytes.clone_from(&other.bytes);
        self.entries.clone_from(&other.entries);
        self.size = other.size;
        self.is_excerpt = other.is_excerpt;
    }

    /// A small list of its own, to be looked into after this one: of each field as much as `wanted` gives, as long as all of it has room in so
    /// many bytes. What has none is left out.
    #[must_use]
    pub fn excerpt(&self, room: usize, wanted: fn(Field<'_>) -> Option<&[u8]>) -> Self {
        let mut kept = Self { is_excerpt: true, ..Self::new() };
        let mut room = room;
        for entry in &self.entries {
            let field = self.field(entry);
            let Some(value) = wanted(field) else { continue };
            let Some(rest) = room.checked_sub(field.name.len() + value.len() + size_of::<Entry>()) else {
                continue;
            };
            room = rest;
            let mut own = kept.own(field.known, field.name, value);
            own.indexing = entry.indexing;
            kept.push_entry(own);
        }
        kept
    }

    /// Whether it is what is left of a list that had more.
    #[must_use]
    pub fn is_excerpt(&self) -> bool {
        self.is_excerpt
    }

    pub(super) fn push_entry(&mut self, entry: Entry) {
        self.size += entry.size();
        self.entries.push(entry);
    }

    pub(super) fn pop_entry(&mut self) {
        if let Some(entry) = self.entries.pop() {
            self.size -= entry.size();
        }
    }

    #[inline(always)]
    pub(super) fn field(&self, entry: &Entry) -> Field<'_> {
        let (name, value) = if entry.whole_static != 0 {
            let field = static_table::entry(entry.whole_static);
            (field.name, field.value)
        } else {
            let (name, rest) = self.bytes[entry.at as usize..].split_at(entry.name_len as usize);
            (name, &rest[..entry.value_len as usize])
        };
        Field { name, value, never_indexed: entry.indexing == Indexing::Never, known: entry.name }
    }

    /// Of a field that is not in the static table: name and value one behind the other, and the value's Huffman form as
    /// it came, empty if it came without.
    pub(super) fn text(&self, entry: &Entry) -> (&[u8], &[u8]) {
        let behind = &self.bytes[entry.at as usize..];
        let (text, behind) = behind.split_at((entry.name_len + entry.value_len) as usize);
        (text, &behind[..entry.huffman_len as usize])
    }

    fn position(&self, name: Name) -> Option<usize> {
        if name == Name::Other {
            return None;
        }
        self.entries.iter().position(|entry| entry.name == name)
    }

    fn own(&mut self, known: Name, name: &[u8], value: &[u8]) -> Entry {
        if let Some(index) = static_table::find(known, value) {
            return Entry::of_static(index);
        }
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let name_hash = hash::of_name(name);
        Entry {
            at,
            name_len: name.len() as u32,
            value_len: value.len() as u32,
            huffman_len: 0,
            name_hash,
            hash: hash::with_value(name_hash, value),
            name: known,
            indexing: Indexing::Allowed,
            whole_static: 0,
        }
    }
}
