//! The header codec by itself, for fuzz targets alone (`--cfg fuzzing`): everybody else meets it inside a
//! [`Connection`](super::Connection).

use super::FieldList;
use super::hpack::{Decoder, Encoder, ListLimits, Undecoded};

/// A connection's decoder.
#[derive(Debug)]
pub struct BlockDecoder(Decoder);

impl BlockDecoder {
    /// With the dynamic table that our SETTINGS announce.
    #[must_use]
    pub fn new(announced: usize) -> Self {
        Self(Decoder::new(announced))
    }

    /// Decodes a block into `fields`, which is cleared; whether the list is complete, rather than cut at `most` bytes.
    ///
    /// # Errors
    /// Why the block is not HPACK.
    pub fn decode(
        &mut self,
        block: &[u8],
        most: usize,
        fields: &mut FieldList,
    ) -> Result<bool, &'static str> {
        fields.clear();
        let limits = ListLimits { bytes: most, fields: usize::MAX, unpacked: usize::MAX };
        let decoded = self.0.decode(block, limits, fields).map_err(|undecoded| match undecoded {
            Undecoded::NotHpack(reason) => reason,
            Undecoded::Bomb => "it unpacks to too much",
        })?;
        Ok(!decoded.too_large)
    }
}

/// A connection's encoder.
#[derive(Debug)]
pub struct BlockEncoder(Encoder);

impl BlockEncoder {
    /// With at most so large a dynamic table.
    #[must_use]
    pub fn new(max_table: usize) -> Self {
        Self(Encoder::new(max_table))
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn set_peer_table(&mut self, bytes: usize) {
        self.0.set_peer_table(bytes);
    }

    /// Encodes a block to the end of `out`.
    pub fn encode(&mut self, fields: &FieldList, out: &mut Vec<u8>) {
        self.0.encode(fields, out);
    }
}
