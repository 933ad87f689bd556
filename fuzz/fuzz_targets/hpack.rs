//! Header blocks, any bytes at all: our decoder and another crate's read the same fields or refuse the same blocks, and what our
//! encoder makes of the fields is read by both as what it was.
#![no_main]

use evenkeel_fuzz::http2::FieldList;
use evenkeel_fuzz::http2::fuzzing::{BlockDecoder, BlockEncoder};
use fluke_hpack::Decoder as OtherDecoder;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// HPACK's default, and a table that holds next to nothing.
const TABLES: [usize; 4] = [4_096, 4_096, 100, 0];
/// More than any input here stands for.
const MOST_BYTES: usize = 64 << 20;
/// The protocol's table, which holds until the peer has seen another size.
const DEFAULT_TABLE: usize = 4_096;

fn pairs(fields: &FieldList) -> Pairs {
    fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

/// The other crate's word on a block; it has no size limit of its own, and no panic of its is ours to answer for.
fn other(decoder: &mut OtherDecoder<'_>, block: &[u8]) -> Result<Pairs, String> {
    decoder.decode(block).map_err(|error| format!("{error:?}"))
}

/// Refusals that differ with reason: RFC 7541 leaves the largest integer open, and we take none above 32 bits; a table's new size
/// stands in front of the fields (§4.2), which the other crate does not check, and need have none behind it, which it does.
fn may_differ(ours: &Result<bool, &'static str>, theirs: &Result<Pairs, String>) -> bool {
    matches!(ours, Err(reason) if reason.contains("too large") || reason.contains("behind a field"))
        || matches!(theirs, Err(reason) if reason.contains("SizeUpdateAtEnd"))
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((choice, mut rest)) = input.split_first() else { return };
    let table = TABLES[usize::from(*choice) % TABLES.len()];
    let mut ours = BlockDecoder::new(table);
    let mut theirs = OtherDecoder::new();
    theirs.set_max_allowed_table_size(DEFAULT_TABLE);
    let mut encoder = BlockEncoder::new(DEFAULT_TABLE);
    encoder.set_peer_table(table);
    let mut ours_again = BlockDecoder::new(table);
    let mut theirs_again = OtherDecoder::new();
    theirs_again.set_max_allowed_table_size(DEFAULT_TABLE);
    let (mut fields, mut fields_again) = (FieldList::new(), FieldList::new());
    while let Some((length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let outcome = ours.decode(block, MOST_BYTES, &mut fields);
        // The other crate panics at one that is cut short.
        if outcome.is_err_and(|reason| reason.contains("size update")) {
            return;
        }
        let expected = other(&mut theirs, block);
        match (&outcome, &expected) {
            (Ok(complete), Ok(expected)) => {
                assert!(complete, "the list was cut");
                assert_eq!(&pairs(&fields), expected, "the two decoders read different fields");
            }
            (Err(_), Err(_)) => return,
            _ if may_differ(&outcome, &expected) => return,
            _ => panic!("one decoder refuses what the other takes: ours {outcome:?}, theirs {expected:?}"),
        }
        if fields.is_empty() {
            continue;
        }
        let mut encoded = Vec::new();
        encoder.encode(&fields, &mut encoded);
        let again = ours_again.decode(&encoded, MOST_BYTES, &mut fields_again);
        assert_eq!(again, Ok(true), "our own block is not read");
        assert_eq!(pairs(&fields_again), pairs(&fields), "our own block is read as something else");
        let secrets = |list: &FieldList| list.iter().map(|field| field.never_indexed).collect::<Vec<_>>();
        assert_eq!(secrets(&fields_again), secrets(&fields), "never-indexed does not stay so");
        assert_eq!(other(&mut theirs_again, &encoded), Ok(pairs(&fields)), "others do not read our block");
    }
});
