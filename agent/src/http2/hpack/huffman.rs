//! HPACK's Huffman code (RFC 7541 §5.2 and Appendix B).
//!
//! The code is canonical (codes of one length are consecutive, in the order of their symbols), so the lengths are the
//! whole of Appendix B; everything else is worked out from them when this file is compiled.

/// Bits of each symbol's code; the last one is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const EOS: u16 = 256;
const MAX_BITS: usize = 30;
/// Eleven bits hold one symbol of ordinary text and often two, and the table is 8 KiB.
const SHORT_BITS: u32 = 11;

/// The string is no Huffman code: EOS inside, or padding that is not the start of EOS (RFC 7541 §5.2).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::http2) struct BadHuffman;

#[derive(Copy, Clone)]
struct Code {
    bits: u32,
    length: u8,
}

/// What the next eleven bits start with: no whole symbol, one, or two.
#[derive(Copy, Clone)]
struct Short {
    symbols: [u8; 2],
    /// Bits of the first symbol, 0 if its code is longer than eleven.
    first: u8,
    /// Bits of both, or again of the first if the second does not fit.
    both: u8,
}

struct Tables {
    codes: [Code; 257],
    /// All symbols in the order of their codes.
    ordered: [u16; 257],
    /// For each length: the end of its codes, left-aligned in 32 bits.
    end: [u64; MAX_BITS + 1],
    /// For each length: its first code, and where that one's symbol is in `ordered`.
    first: [(u32, usize); MAX_BITS + 1],
}

static TABLES: Tables = build_tables();
static SHORT: [Short; 1 << SHORT_BITS] = build_short(&build_tables());

const fn build_tables() -> Tables {
    let mut tables = Tables {
        codes: [Code { bits: 0, length: 0 }; 257],
        ordered: [0; 257],
        end: [0; MAX_BITS + 1],
        first: [(0, 0); MAX_BITS + 1],
    };
    let (mut code, mut rank, mut length) = (0u32, 0, 1);
    while length <= MAX_BITS {
        code <<= 1;
        tables.first[length] = (code, rank);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                tables.codes[symbol] = Code { bits: code, length: length as u8 };
                tables.ordered[rank] = symbol as u16;
                code += 1;
                rank += 1;
            }
            symbol += 1;
        }
        tables.end[length] = (code as u64) << (32 - length);
        length += 1;
    }
    tables
}

const fn build_short(tables: &Tables) -> [Short; 1 << SHORT_BITS] {
    let mut short = [Short { symbols: [0; 2], first: 0, both: 0 }; 1 << SHORT_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let Code { bits, length } = tables.codes[symbol];
        if length as u32 <= SHORT_BITS {
            let free = SHORT_BITS - length as u32;
            let mut tail = 0;
            while tail < 1 << free {
                short[((bits << free) | tail) as usize] =
                    Short { symbols: [symbol as u8, 0], first: length, both: length };
                tail += 1;
            }
        }
        symbol += 1;
    }
    // The second symbol starts where the first one ends.
    let mut bits = 0;
    while bits < 1 << SHORT_BITS {
        let first = short[bits].first;
        if first != 0 {
            let behind = short[(bits << first) & ((1 << SHORT_BITS) - 1)];
            if behind.first != 0 && first as u32 + behind.first as u32 <= SHORT_BITS {
                short[bits].symbols[1] = behind.symbols[0];
                short[bits].both = first + behind.first;
            }
        }
        bits += 1;
    }
    short
}

/// Decodes `coded` to the end of `out`.
pub(in crate::http2) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), BadHuffman> {
    let start = out.len();
    // The shortest code has five bits; two more bytes because symbols are written in pairs.
    out.resize(start + coded.len() * 8 / 5 + 2, 0);
    let decoded = decode_into(coded, &mut out[start..]);
    out.truncate(start + decoded.unwrap_or(0));
    decoded.map(|_| ())
}

fn decode_into(mut coded: &[u8], out: &mut [u8]) -> Result<usize, BadHuffman> {
    // Bits not yet decoded, left-aligned, and how many they are.
    let (mut bits, mut have) = (0u64, 0u32);
    let mut written = 0;
    loop {
        if have < 32 {
            if let Some((word, rest)) = coded.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*word)) << (32 - have);
                have += 32;
                coded = rest;
            } else {
                for byte in coded {
                    bits |= u64::from(*byte) << (56 - have);
                    have += 8;
                }
                coded = &[];
            }
        }
        // Behind the last bit come ones, as in the padding.
        let next = bits | (u64::MAX >> have);
        let short = SHORT[(next >> (64 - SHORT_BITS)) as usize];
        let used = if short.both != 0 && u32::from(short.both) <= have {
            out[written..written + 2].copy_from_slice(&short.symbols);
            written += 1 + usize::from(short.both != short.first);
            u32::from(short.both)
        } else if short.first != 0 && u32::from(short.first) <= have {
            out[written] = short.symbols[0];
            written += 1;
            u32::from(short.first)
        } else {
            let (symbol, length) = long((next >> 32) as u32);
            if length > have {
                let padding_is_ones = have < 8 && next == u64::MAX;
                return if padding_is_ones { Ok(written) } else { Err(BadHuffman) };
            }
            out[written] = u8::try_from(symbol).map_err(|_| BadHuffman)?;
            written += 1;
            length
        };
        bits <<= used;
        have -= used;
    }
}

/// The symbol at the start of these 32 bits, and the length of its code.
fn long(next: u32) -> (u16, u32) {
    let mut length = 5;
    while length < MAX_BITS && u64::from(next) >= TABLES.end[length] {
        length += 1;
    }
    let (code, rank) = TABLES.first[length];
    let offset = ((next >> (32 - length)) - code) as usize;
    (TABLES.ordered.get(rank + offset).copied().unwrap_or(EOS), length as u32)
}

/// Bytes that `plain` takes in the code.
pub(in crate::http2) fn encoded_len(plain: &[u8]) -> usize {
    let bits: usize = plain.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Encodes `plain` to the end of `out`.
pub(in crate::http2) fn encode(plain: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut have) = (0u64, 0u32);
    for byte in plain {
        let code = TABLES.codes[usize::from(*byte)];
        bits = (bits << code.length) | u64::from(code.bits);
        have += u32::from(code.length);
        if have >= 32 {
            have -= 32;
            out.extend_from_slice(&((bits >> have) as u32).to_be_bytes());
        }
    }
    if have > 0 {
        // Padded with the first bits of EOS, which are ones.
        let padded = ((bits << 32) | u64::from(u32::MAX)) >> have;
        out.extend_from_slice(&(padded as u32).to_be_bytes()[..have.div_ceil(8) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(plain: &[u8]) {
        let mut coded = Vec::new();
        encode(plain, &mut coded);
        assert_eq!(coded.len(), encoded_len(plain));
        let mut back = b"before".to_vec();
        decode(&coded, &mut back).expect("our own code");
        assert_eq!(&back[6..], plain);
    }

    #[test]
    fn every_symbol_alone_and_between_others_survives_the_round_trip() {
        for symbol in 0..=255 {
            round_trip(&[symbol]);
            round_trip(&[b'a', symbol, b'&']);
            round_trip(&[symbol; 33]);
        }
        round_trip(b"");
        round_trip(&(0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn decodes_the_strings_of_rfc_7541_appendix_c() {
        for (coded, plain) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
        ] {
            let mut out = Vec::new();
            decode(coded, &mut out).expect("valid");
            assert_eq!(out, plain.as_bytes());
        }
    }

    #[test]
    fn padding_longer_than_seven_bits_is_refused() {
        // 'a' is 00011, then three ones; then a whole byte of padding.
        assert_eq!(decode(&[0x1f], &mut Vec::new()), Ok(()));
        assert_eq!(decode(&[0x1f, 0xff], &mut Vec::new()), Err(BadHuffman));
        assert_eq!(decode(&[0xff], &mut Vec::new()), Err(BadHuffman));
    }

    #[test]
    fn padding_that_is_not_the_start_of_eos_is_refused() {
        assert_eq!(decode(&[0x18], &mut Vec::new()), Err(BadHuffman));
    }

    #[test]
    fn eos_inside_a_string_is_refused() {
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff], &mut Vec::new()), Err(BadHuffman));
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xfc, 0x1f], &mut Vec::new()), Err(BadHuffman));
    }
}
