//! Finds a field, or a field's name, in an encoder's dynamic table by the hash that came with it.

use std::collections::VecDeque;

use super::dynamic_table::{DynamicTable, TableField};

/// A search gives up here: whoever makes hashes collide pays with larger blocks of his own.
const MAX_STEPS: usize = 16;
/// Buckets for a table of HPACK's default size, which holds at most 128 fields.
const BUCKETS: usize = 128;

/// The place of a field in the order of insertion, from 1; 0 is none.
type Sequence = u32;

/// Two hash tables over the same fields. Each bucket has its newest field, and each field the next older one of its
/// bucket, so that eviction has nothing to take out: whoever meets a field that is gone has reached the end.
#[derive(Default, Debug)]
pub(super) struct Index {
    /// Empty until the first field.
    newest: Vec<Heads>,
    /// As many as the table has fields, oldest first.
    older: VecDeque<Heads>,
    inserted: Sequence,
}

#[derive(Copy, Clone, Default, Debug)]
struct Heads {
    same_field: Sequence,
    same_name: Sequence,
}

impl Index {
    /// The age of the field with this hash, name and value.
    pub(super) fn find(&self, table: &DynamicTable, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        let newest = self.newest.get(hash as usize % BUCKETS)?.same_field;
        self.search(
            table,
            newest,
            |heads| heads.same_field,
            |field| {
                field.hash == hash
                    && field.name_len as usize == name.len()
                    && table.bytes(field).strip_prefix(name) == Some(value)
            },
        )
    }

    /// The age of a field with this name.
    pub(super) fn find_name(&self, table: &DynamicTable, name_hash: u32, name: &[u8]) -> Option<usize> {
        let newest = self.newest.get(name_hash as usize % BUCKETS)?.same_name;
        self.search(
            table,
            newest,
            |heads| heads.same_name,
            |field| {
                field.name_hash == name_hash
                    && field.name_len as usize == name.len()
                    && table.bytes(field).starts_with(name)
            },
        )
    }

    /// Takes in the field that was just put in front of the table.
    pub(super) fn inserted(&mut self, table: &DynamicTable, hash: u32, name_hash: u32) {
        if self.newest.is_empty() {
            self.newest.resize(BUCKETS, Heads::default());
        }
        self.inserted = self.inserted.wrapping_add(1);
        let of_field = &mut self.newest[hash as usize % BUCKETS].same_field;
        let same_field = std::mem::replace(of_field, self.inserted);
        let of_name = &mut self.newest[name_hash as usize % BUCKETS].same_name;
        let same_name = std::mem::replace(of_name, self.inserted);
        self.older.push_back(Heads { same_field, same_name });
        self.older.drain(..self.older.len().saturating_sub(table.len()));
    }

    pub(super) fn held_bytes(&self) -> usize {
        (self.newest.capacity() + self.older.capacity()) * size_of::<Heads>()
    }

    fn search(
        &self,
        table: &DynamicTable,
        mut sequence: Sequence,
        next: impl Fn(&Heads) -> Sequence,
        is_match: impl Fn(&TableField) -> bool,
    ) -> Option<usize> {
        let mut least_age = 0;
        for _ in 0..MAX_STEPS {
            let age = self.inserted.wrapping_sub(sequence) as usize;
            if sequence == 0 || age < least_age {
                return None;
            }
            let field = table.field(age)?;
            if is_match(field) {
                return Some(age);
            }
            least_age = age + 1;
            // The table may have shrunk since the last insertion: its fields are the newest of these.
            sequence = next(self.older.get(self.older.len().checked_sub(age + 1)?)?);
        }
        None
    }
}
