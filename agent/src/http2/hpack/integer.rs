//! HPACK's integers (RFC 7541 §5.1).

/// Reads an integer whose prefix is `prefix` bits of `first`, which was taken off `rest` already. `None` if it is cut
/// short or does not fit 32 bits, more than any length or index of ours.
#[inline]
pub(super) fn decode(first: u8, prefix: u32, rest: &mut &[u8]) -> Option<u32> {
    let mask = (1u32 << prefix) - 1;
    let value = u32::from(first) & mask;
    if value < mask {
        return Some(value);
    }
    decode_rest(value, rest)
}

fn decode_rest(mut value: u32, rest: &mut &[u8]) -> Option<u32> {
    for shift in [0, 7, 14, 21, 28] {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        let part = u64::from(byte & 0x7f) << shift;
        value = value.checked_add(u32::try_from(part).ok()?)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes an integer; `pattern` are the bits in front of its prefix.
#[inline]
pub(super) fn encode(value: usize, prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask as u8);
    encode_rest(value - mask, out);
}

fn encode_rest(mut rest: usize, out: &mut Vec<u8>) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], prefix: u32) -> Option<u32> {
        let (first, mut rest) = bytes.split_first()?;
        decode(*first, prefix, &mut rest)
    }

    #[test]
    fn the_examples_of_rfc_7541_c1() {
        assert_eq!(read(&[0b01010], 5), Some(10));
        assert_eq!(read(&[0b11111, 0b1001_1010, 0b0000_1010], 5), Some(1337));
        assert_eq!(read(&[42], 8), Some(42));
    }

    #[test]
    fn every_prefix_survives_the_round_trip() {
        for prefix in 4..=7 {
            for value in
                [0, 1, 14, 15, 16, 30, 31, 126, 127, 128, 254, 255, 16_383, 70_000, u32::MAX as usize]
            {
                let mut out = Vec::new();
                encode(value, prefix, 0, &mut out);
                assert_eq!(read(&out, prefix), Some(value as u32), "{value} in {prefix} bits");
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_too_large_is_refused() {
        assert_eq!(read(&[0x1f], 5), None);
        assert_eq!(read(&[0x1f, 0x80], 5), None);
        assert_eq!(read(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00], 5), None);
        assert_eq!(read(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f], 5), None);
    }
}
