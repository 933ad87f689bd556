//! RFC 7541 Appendix C, and the two directions against each other.

use super::dynamic_table::DEFAULT_BYTES;
use super::{Decoded, Decoder, Encoder, ListLimits};
use crate::http2::Name;
use crate::http2::fields::{FieldList, Indexing};

const WIDE: ListLimits = ListLimits { bytes: usize::MAX, fields: usize::MAX, unpacked: usize::MAX };

type Pairs = Vec<(String, String)>;

fn pairs(list: &FieldList) -> Pairs {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    list.iter().map(|field| (text(field.name), text(field.value))).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hex digit") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Pairs {
    let mut list = FieldList::new();
    assert_eq!(decoder.decode(block, WIDE, &mut list), Ok(Decoded::default()));
    pairs(&list)
}

fn owned(fields: &[(&str, &str)]) -> Pairs {
    fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// A block and the field list it stands for.
type Example<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// Blocks of one connection, in order.
fn check(decoder: &mut Decoder, blocks: &[Example<'_>]) {
    for (block, fields) in blocks {
        assert_eq!(decode(decoder, &hex(block)), owned(fields));
    }
}

#[test]
fn rfc_7541_c2_single_fields() {
    let custom: &[_] = &[("custom-key", "custom-header")];
    let path: &[_] = &[(":path", "/sample/path")];
    let password: &[_] = &[("password", "secret")];
    for (block, fields) in [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", custom),
        ("040c 2f73 616d 706c 652f 7061 7468", path),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", password),
        ("82", &[(":method", "GET")]),
    ] {
        check(&mut Decoder::new(DEFAULT_BYTES), &[(block, fields)]);
    }
}

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

#[test]
fn rfc_7541_c3_requests_without_huffman() {
    check(
        &mut Decoder::new(DEFAULT_BYTES),
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0]),
            ("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1]),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUESTS[2]),
        ],
    );
}

#[test]
fn rfc_7541_c4_requests_with_huffman() {
    check(
        &mut Decoder::new(DEFAULT_BYTES),
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0]),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1]),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUESTS[2]),
        ],
    );
}

const DATE: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const RESPONSES: [&[(&str, &str)]; 3] = [
    &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", DATE),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", DATE),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
];

/// Appendix C.5 and C.6 have a table of 256 bytes, so that fields are evicted.
fn small_decoder() -> Decoder {
    let mut decoder = Decoder::new(DEFAULT_BYTES);
    assert_eq!(decode(&mut decoder, &hex("3fe1 01")), Pairs::new());
    decoder
}

#[test]
fn rfc_7541_c5_responses_without_huffman() {
    check(
        &mut small_decoder(),
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                 6c65 2e63 6f6d",
                RESPONSES[0],
            ),
            ("4803 3330 37c1 c0bf", RESPONSES[1]),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                 3d31",
                RESPONSES[2],
            ),
        ],
    );
}

#[test]
fn rfc_7541_c6_responses_with_huffman() {
    check(
        &mut small_decoder(),
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSES[0],
            ),
            ("4883 640e ffc1 c0bf", RESPONSES[1]),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                RESPONSES[2],
            ),
        ],
    );
}

/// A small reproducible source of variety.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

fn call(random: &mut Random, list: &mut FieldList) {
    list.clear();
    list.push(b":method", b"POST");
    list.push(b":path", format!("/pkg.Service/Method{}", random.below(60)).as_bytes());
    list.push(b"te", b"trailers");
    list.push(b"authorization", format!("Bearer t{}", "t".repeat(random.below(900))).as_bytes());
    list.push(
        b"traceparent",
        format!("00-{:032x}-{:016x}-01", random.below(1 << 30), random.below(99)).as_bytes(),
    );
    list.push(b"grpc-timeout", format!("{}m", random.below(40)).as_bytes());
    list.push(format!("x-{}", random.below(30)).as_bytes(), &vec![b'\xff'; random.below(20)]);
    if random.below(500) == 0 {
        list.push(b"x-large", &vec![b'l'; 5_000]);
    }
}

#[test]
fn what_one_side_encodes_the_other_decodes_over_evictions_and_changes_of_size() {
    let mut random = Random(7);
    let mut encoder = Encoder::new(16_384);
    let mut decoder = Decoder::new(16_384);
    let (mut list, mut block) = (FieldList::new(), Vec::new());
    for step in 0..5_000 {
        if step % 250 == 249 {
            // Some changes come in pairs: both sizes must be told (RFC 7541 §4.2).
            for _ in 0..=random.below(2) {
                encoder.set_peer_table(random.below(10_000));
            }
        }
        call(&mut random, &mut list);
        block.clear();
        encoder.encode(&list, &mut block);
        assert_eq!(decode(&mut decoder, &block), pairs(&list), "step {step}");
    }
}

#[test]
fn a_list_relayed_through_a_decoder_and_an_encoder_stays_the_same() {
    let mut random = Random(11);
    let mut hops: Vec<_> = (0..3).map(|_| (Encoder::new(4_096), Decoder::new(4_096))).collect();
    let (mut first, mut list, mut block) = (FieldList::new(), FieldList::new(), Vec::new());
    for _ in 0..2_000 {
        call(&mut random, &mut first);
        list.copy_from(&first);
        for (encoder, decoder) in &mut hops {
            block.clear();
            encoder.encode(&list, &mut block);
            list.clear();
            decoder.decode(&block, WIDE, &mut list).expect("our own block");
            assert_eq!(pairs(&list), pairs(&first));
            assert_eq!(list.size(), first.size());
        }
    }
}

fn relay(block: &[u8], encoder: &mut Encoder) -> Vec<u8> {
    let mut list = FieldList::new();
    Decoder::new(DEFAULT_BYTES).decode(block, WIDE, &mut list).expect("a valid block");
    let mut out = Vec::new();
    encoder.encode(&list, &mut out);
    out
}

#[test]
fn never_indexed_stays_never_indexed_and_without_indexing_stays_so() {
    // Name and value in Huffman form, as RFC 7541 C.4.3 has them.
    for pattern in ["10", "00"] {
        let block = hex(&format!("{pattern}88 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"));
        let mut encoder = Encoder::new(DEFAULT_BYTES);
        for _ in 0..3 {
            assert_eq!(relay(&block, &mut encoder), block);
        }
    }
}

#[test]
fn a_never_indexed_field_says_so_to_its_owner() {
    let mut list = FieldList::new();
    let block = hex("1008 7061 7373 776f 7264 0673 6563 7265 74");
    Decoder::new(DEFAULT_BYTES).decode(&block, WIDE, &mut list).expect("valid");
    assert!(list.iter().all(|field| field.never_indexed));
}

#[test]
fn a_never_indexed_field_stays_so_with_another_value() {
    let mut list = FieldList::new();
    // `te: secret`, never indexed.
    let block = hex("1002 7465 0673 6563 7265 74");
    Decoder::new(DEFAULT_BYTES).decode(&block, WIDE, &mut list).expect("valid");
    list.set(Name::Te, b"hidden");
    assert_eq!(list.find(Name::Te), Some(&b"hidden"[..]));
    assert!(list.iter().all(|field| field.never_indexed));
}

#[test]
fn a_value_that_comes_back_is_one_byte_in_the_end_and_one_that_does_not_is_never_indexed() {
    let mut encoder = Encoder::new(DEFAULT_BYTES);
    let mut list = FieldList::new();
    let mut block = Vec::new();
    for call in 0..200 {
        list.clear();
        list.push(b":path", b"/pkg.Service/Method");
        list.push(b"traceparent", format!("00-{call:032x}-{call:016x}-01").as_bytes());
        block.clear();
        encoder.encode(&list, &mut block);
        if call >= 2 {
            assert_eq!(block[0] & 0x80, 0x80, "the path is in the table");
            assert_eq!(block[1] & 0xf0, 0x00, "the trace is a literal without indexing");
        }
    }
}

#[test]
fn values_that_change_do_not_push_others_out_of_the_table() {
    let mut random = Random(3);
    let mut encoder = Encoder::new(DEFAULT_BYTES);
    let (mut list, mut block, mut total) = (FieldList::new(), Vec::new(), 0);
    for call in 0..1_000 {
        list.clear();
        list.push(b":path", format!("/pkg.Service/Method{}", call % 8).as_bytes());
        list.push(b"user-agent", b"grpc-go/1.70.0");
        list.push(b"x-request-id", format!("{:032x}", random.below(1 << 30)).as_bytes());
        block.clear();
        encoder.encode(&list, &mut block);
        if call >= 100 {
            total += block.len();
        }
    }
    // Path and agent one byte each; the identifier's name two at most, a length, 32 bytes.
    assert!(total <= 900 * (1 + 1 + 2 + 1 + 32), "{} bytes a block", total / 900);
}

#[test]
fn lists_over_the_limit_are_cut_short_and_keep_the_table_right() {
    let mut encoder = Encoder::new(DEFAULT_BYTES);
    let mut decoder = Decoder::new(DEFAULT_BYTES);
    let mut list = FieldList::new();
    for i in 0..10 {
        list.push(format!("name-{i}").as_bytes(), b"value");
    }
    let mut block = Vec::new();
    encoder.encode(&list, &mut block);
    let mut cut = FieldList::new();
    let limits = ListLimits { fields: 3, ..WIDE };
    assert!(decoder.decode(&block, limits, &mut cut).expect("HPACK all the same").too_large);
    assert_eq!(pairs(&cut), pairs(&list)[..3]);
    block.clear();
    cut.clear();
    encoder.encode(&list, &mut block);
    assert_eq!(block.len(), 10, "all of them are in the table");
    assert!(decoder.decode(&block, ListLimits { bytes: 100, ..WIDE }, &mut cut).expect("HPACK").too_large);
    assert!(cut.size() <= 100);
    assert_eq!(decode(&mut decoder, &block), pairs(&list));
}

#[test]
fn what_is_no_hpack_is_refused() {
    for (what, block) in [
        ("index 0", "80"),
        ("index of no entry", "be"),
        ("literal with the name of no entry", "7f 00 01 61"),
        ("index cut short", "ff"),
        ("string cut short", "00 05 61"),
        ("no value", "00 01 61"),
        ("size update above ours", "3f e2 1f"),
        ("size update behind a field", "82 20"),
        ("bad Huffman code", "00 01 61 81 00"),
        ("index too large", "ff ff ff ff ff ff ff 7f"),
    ] {
        let mut list = FieldList::new();
        assert!(Decoder::new(DEFAULT_BYTES).decode(&hex(block), WIDE, &mut list).is_err(), "{what}");
    }
}

#[test]
fn forbidden_names_and_values_are_found_in_literals_and_again_in_the_table() {
    for (name, value, valid) in [
        ("a", "b", true),
        ("a", "", true),
        ("a", "b c", true),
        ("A", "b", false),
        ("", "b", false),
        (":unknown", "b", false),
        ("a b", "b", false),
        ("a\u{7f}", "b", false),
        ("a", "b\n", false),
        ("a", "b\r\nc", false),
        ("a", "\0", false),
        // Malformed by the letter, and sent by many a server.
        ("a", " b", true),
        ("a", "b\t", true),
    ] {
        let mut block = vec![0x40, name.len() as u8];
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
        let mut decoder = Decoder::new(DEFAULT_BYTES);
        for block in [&block[..], &[0xbe]] {
            let decoded = decoder.decode(block, WIDE, &mut FieldList::new()).expect("HPACK all the same");
            assert_eq!(decoded.invalid_field, !valid, "{name:?}: {value:?}");
        }
    }
}

#[test]
fn references_behind_the_limit_are_not_kept_and_still_have_to_be_right() {
    let limits = ListLimits { bytes: 1_000, fields: 10, ..WIDE };
    let mut decoder = Decoder::new(DEFAULT_BYTES);
    let mut list = FieldList::new();
    let (name, value) = ([b'a'; 100], [b'b'; 100]);
    let literal = [&[0x40, 100][..], &name, &[100], &value].concat();
    let block = [&literal[..], &[0xbe; 5_000]].concat();
    let decoded = decoder.decode(&block, limits, &mut list).expect("HPACK all the same");
    assert!(decoded.too_large && list.size() <= 1_000, "{decoded:?}");
    // The table is the encoder's as ever.
    list.clear();
    let decoded = decoder.decode(&[0xbe], limits, &mut list).expect("in the table");
    assert!(!decoded.too_large && list.len() == 1);
    let broken = [&[0xbe; 50][..], &[0xbf]].concat();
    assert!(decoder.decode(&broken, limits, &mut FieldList::new()).is_err());
}

#[test]
fn fields_of_our_own_are_found_replaced_and_removed() {
    use crate::http2::Name;
    let mut list = FieldList::new();
    list.push(b":status", b"200");
    list.push(b"grpc-status", b"14");
    list.push(b"x", b"y");
    list.set(Name::Status, b"503");
    list.set(Name::GrpcMessage, b"gone");
    assert_eq!(list.find(Name::Status), Some(&b"503"[..]));
    assert_eq!(list.find(Name::GrpcMessage), Some(&b"gone"[..]));
    assert_eq!(list.find(Name::Other), None);
    list.remove(Name::GrpcStatus);
    assert_eq!(pairs(&list), owned(&[(":status", "503"), ("x", "y"), ("grpc-message", "gone")]));
    assert_eq!(
        list.size(),
        list.iter().map(|field| field.name.len() + field.value.len() + 32).sum::<usize>()
    );
    assert!(list.entries.iter().all(|entry| entry.indexing == Indexing::Allowed));
}
