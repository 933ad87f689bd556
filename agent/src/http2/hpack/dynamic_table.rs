//! HPACK's dynamic table (RFC 7541 §2.3.2 and §4), the same for both directions.

use crate::http2::fields::FIELD_OVERHEAD;
use crate::http2::name::Name;

/// The table that both sides start with, until SETTINGS say otherwise (RFC 9113 §6.5.2).
pub(in crate::http2) const DEFAULT_BYTES: usize = 4_096;

/// A field's place in the order of insertion; wraps around after 2^32 of them.
pub(super) type Sequence = u32;

/// What the table knows of a field beside its bytes; worked out once, when the field is put in.
#[derive(Copy, Clone, Debug)]
pub(super) struct TableField {
    /// Where the name starts in the table's bytes; the value is behind it.
    at: u32,
    pub(super) name_len: u32,
    pub(super) value_len: u32,
    pub(super) name_hash: u32,
    pub(super) hash: u32,
    /// For the encoder's index: the next older field with the same last bits of its hash, and of its name's.
    pub(super) older_by_field: Sequence,
    pub(super) older_by_name: Sequence,
    pub(super) name: Name,
    /// Name and value are what RFC 9113 §8.2.1 allows.
    pub(super) valid: bool,
}

impl TableField {
    pub(super) const VACANT: Self = Self::new(Name::Other, 0, 0, 0, 0, false);

    pub(super) const fn new(
        name: Name,
        name_len: u32,
        value_len: u32,
        name_hash: u32,
        hash: u32,
        valid: bool,
    ) -> Self {
        Self { at: 0, name_len, value_len, name_hash, hash, older_by_field: 0, older_by_name: 0, name, valid }
    }

    fn size(&self) -> usize {
        (self.name_len + self.value_len) as usize + FIELD_OVERHEAD
    }
}

#[derive(Debug)]
pub(super) struct DynamicTable {
    /// Names and values, oldest first. Bytes in front of the oldest field are dead until the next compaction.
    bytes: Vec<u8>,
    /// A ring with a power of two of places; a field is at its sequence number.
    ring: Vec<TableField>,
    newest: Sequence,
    len: usize,
    size: usize,
    max_size: usize,
}

impl DynamicTable {
    /// An empty table; allocates with its first field.
    pub(super) fn new(max_size: usize) -> Self {
        Self { bytes: Vec::new(), ring: Vec::new(), newest: 0, len: 0, size: 0, max_size }
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_down_to(max_size);
    }

    /// The sequence number of the newest field.
    pub(super) fn newest(&self) -> Sequence {
        self.newest
    }

    /// The field that came as the `age`-th last; 0 is the newest.
    pub(super) fn field(&self, age: usize) -> Option<&TableField> {
        if age >= self.len {
            return None;
        }
        self.ring.get(self.place(self.newest.wrapping_sub(age as u32)))
    }

    /// The field's name and value, one behind the other.
    pub(super) fn bytes(&self, field: &TableField) -> &[u8] {
        let at = field.at as usize;
        &self.bytes[at..at + (field.name_len + field.value_len) as usize]
    }

    pub(super) fn fits(&self, name_len: usize, value_len: usize) -> bool {
        name_len + value_len + FIELD_OVERHEAD <= self.max_size
    }

    /// Puts a field in front; `text` is its name and its value. A field larger than the table only empties it
    /// (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, mut field: TableField, text: &[u8]) {
        let size = field.size();
        if size > self.max_size {
            self.evict_down_to(0);
            return;
        }
        self.evict_down_to(self.max_size - size);
        if self.bytes.len() + text.len() > 2 * self.max_size {
            self.compact();
        }
        if self.len == self.ring.len() {
            self.grow();
        }
        field.at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        self.newest = self.newest.wrapping_add(1);
        let place = self.place(self.newest);
        self.ring[place] = field;
        self.len += 1;
        self.size += size;
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.ring.capacity() * size_of::<TableField>()
    }

    /// Only for a ring that is not empty.
    fn place(&self, sequence: Sequence) -> usize {
        sequence as usize & (self.ring.len() - 1)
    }

    fn oldest(&self) -> Option<TableField> {
        self.field(self.len.checked_sub(1)?).copied()
    }

    fn evict_down_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.oldest() else { break };
            self.size -= oldest.size();
            self.len -= 1;
        }
    }

    fn compact(&mut self) {
        let dead = self.oldest().map_or(self.bytes.len(), |oldest| oldest.at as usize);
        self.bytes.drain(..dead);
        for age in 0..self.len {
            let place = self.place(self.newest.wrapping_sub(age as u32));
            self.ring[place].at -= dead as u32;
        }
    }

    fn grow(&mut self) {
        let fields: Vec<_> = (0..self.len).filter_map(|age| self.field(age).copied()).collect();
        self.ring = vec![TableField::VACANT; (self.ring.len() * 2).max(8)];
        for (age, field) in fields.into_iter().enumerate() {
            let place = self.place(self.newest.wrapping_sub(age as u32));
            self.ring[place] = field;
        }
    }
}
