//! `grpc-timeout`: the time that a call has, as it comes and as it goes on (gRPC over HTTP/2, "Timeout").

/// What the agent's own deadline fires after the client's: the server's trailers, which say the same with more detail, win.
pub const GRACE_NS: u64 = 4_000_000;

/// Below this a timeout goes on as it came: the digits that a call lost inside the agent are not worth a new field.
const UNCHANGED_BELOW_NS: u64 = 1_000_000;

/// Parses a timeout (1 to 8 digits and a unit of `HMSmun`) into nanoseconds; `None` if it is none.
pub fn parse(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut amount: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        amount = amount * 10 + u64::from(digit - b'0');
    }
    // Saturates at 584 years.
    Some(amount.saturating_mul(nanoseconds_of(*unit)?))
}

fn nanoseconds_of(unit: u8) -> Option<u64> {
    Some(match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    })
}

/// The timeout to send on after `spent_ns` of `timeout_ns`, rounded down; `None` where the one that came can stay.
pub(super) fn remaining(timeout_ns: u64, spent_ns: u64, buffer: &mut [u8; 16]) -> Option<&[u8]> {
    if spent_ns < UNCHANGED_BELOW_NS {
        return None;
    }
    let left = timeout_ns.saturating_sub(spent_ns);
    // The finest unit whose amount has at most 8 digits: the last one, hours, always does.
    let (amount, unit) = [b'n', b'u', b'm', b'S', b'M', b'H']
        .into_iter()
        .map(|unit| (left / nanoseconds_of(unit).unwrap_or(1), unit))
        .find(|(amount, _)| *amount < 100_000_000)?;
    let mut rest = amount;
    let mut at = buffer.len() - 1;
    buffer[at] = unit;
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return Some(&buffer[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_parse_as_the_specification_says() {
        for (text, expected) in [
            ("1S", Some(1_000_000_000)),
            ("99999999H", Some(u64::MAX)),
            ("0n", Some(0)),
            ("250m", Some(250_000_000)),
            ("100u", Some(100_000)),
            ("2M", Some(120_000_000_000)),
            ("", None),
            ("S", None),
            ("1s", None),
            ("123456789S", None),
            ("-1S", None),
            ("1 S", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_remaining_time_is_never_more_than_what_is_left() {
        let mut buffer = [0; 16];
        assert_eq!(remaining(1_000_000_000, 10, &mut buffer), None);
        for (timeout, spent, expected) in [
            (1_000_000_000, 250_000_000, "750000u"),
            (50_000_000, 1_000_000, "49000000n"),
            (3_600_000_000_000, 1_000_000_000, "3599000m"),
            (5_000_000, 9_000_000, "0n"),
            (u64::MAX, 3_600_000_000_000, "5124094H"),
        ] {
            let text = remaining(timeout, spent, &mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(text).unwrap(), expected);
            assert!(parse(text).unwrap() <= timeout.saturating_sub(spent));
        }
    }
}
