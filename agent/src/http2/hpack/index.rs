//! Finds a field, or a field's name, in an encoder's dynamic table by the hash that came with it.

use super::dynamic_table::{DynamicTable, Sequence, TableField};

/// A search gives up here: whoever makes hashes collide pays with larger blocks of his own.
const MAX_STEPS: usize = 16;
/// Buckets for a table of HPACK's default size, which holds at most 128 fields.
const BUCKETS: usize = 128;

/// Two hash tables over the same fields. Each bucket has its newest field, and each field the next older one of its
/// bucket, so that eviction has nothing to take out: whoever meets a field that is gone has reached the end.
#[derive(Default, Debug)]
pub(super) struct Index {
    /// Empty until the first field.
    buckets: Vec<Bucket>,
}

#[derive(Copy, Clone, Default, Debug)]
struct Bucket {
    by_field: Sequence,
    by_name: Sequence,
}

impl Index {
    /// The age of the field with this hash and this text, name and value one behind the other.
    pub(super) fn find(&self, table: &DynamicTable, hash: u32, text: &[u8], name_len: u32) -> Option<usize> {
        let newest = self.buckets.get(hash as usize % BUCKETS)?.by_field;
        search(
            table,
            newest,
            |field| field.older_by_field,
            |field| field.hash == hash && field.name_len == name_len && table.bytes(field) == text,
        )
    }

    /// The age of a field with this name.
    pub(super) fn find_name(&self, table: &DynamicTable, name_hash: u32, name: &[u8]) -> Option<usize> {
        let newest = self.buckets.get(name_hash as usize % BUCKETS)?.by_name;
        search(
            table,
            newest,
            |field| field.older_by_name,
            |field| {
                field.name_hash == name_hash
                    && field.name_len as usize == name.len()
                    && table.bytes(field).starts_with(name)
            },
        )
    }

    /// Puts a field that fits in front of the table, and remembers where it is.
    pub(super) fn insert(&mut self, table: &mut DynamicTable, mut field: TableField, text: &[u8]) {
        if self.buckets.is_empty() {
            self.buckets.resize(BUCKETS, Bucket::default());
        }
        let sequence = table.newest().wrapping_add(1);
        let by_field = &mut self.buckets[field.hash as usize % BUCKETS].by_field;
        field.older_by_field = std::mem::replace(by_field, sequence);
        let by_name = &mut self.buckets[field.name_hash as usize % BUCKETS].by_name;
        field.older_by_name = std::mem::replace(by_name, sequence);
        table.insert(field, text);
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }
}

fn search(
    table: &DynamicTable,
    mut sequence: Sequence,
    older: impl Fn(&TableField) -> Sequence,
    is_match: impl Fn(&TableField) -> bool,
) -> Option<usize> {
    let mut least_age = 0;
    for _ in 0..MAX_STEPS {
        let age = table.newest().wrapping_sub(sequence) as usize;
        if age < least_age {
            return None;
        }
        // Sequence 0 stands for none: it is out of the table, or a field that the comparison tells apart.
        let field = table.field(age)?;
        if is_match(field) {
            return Some(age);
        }
        least_age = age + 1;
        sequence = older(field);
    }
    None
}
