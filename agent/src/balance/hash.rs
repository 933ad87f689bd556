//! Hashes that every agent computes alike, so that a key leads to the same endpoint from every node.

use crate::http2::FieldList;
use crate::mesh::HashOn;
use std::net::{IpAddr, SocketAddr};

/// What a call is hashed by; `None` where its request has no such header, and it may go anywhere (gRFC A42).
pub(super) fn key_of(hash_on: &HashOn, source: u64, request: &FieldList) -> Option<u64> {
    let HashOn::Header(name) = hash_on else { return Some(source) };
    let mut values = request.iter().filter(|field| field.name == name.as_bytes()).map(|field| field.value);
    let mut hash = fnv_1a(FNV_BASIS, values.next()?);
    for value in values {
        // Several fields of a name are one with commas (RFC 9110 §5.3).
        hash = fnv_1a(fnv_1a(hash, b","), value);
    }
    Some(spread(hash))
}

/// The hash of an endpoint's address; another `salt`, another hash.
pub(super) fn of_address(address: SocketAddr, salt: u64) -> u64 {
    let hash = match address.ip() {
        IpAddr::V4(ip) => fnv_1a(FNV_BASIS, &ip.octets()),
        IpAddr::V6(ip) => fnv_1a(FNV_BASIS, &ip.octets()),
    };
    spread(fnv_1a(hash, &address.port().to_be_bytes()) ^ spread(salt))
}

/// Spreads what is close: the finisher of SplitMix64 (Steele, Lea, Flood, 2014).
pub(super) fn spread(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a (Fowler, Noll, Vo; RFC 9923): keys are short.
fn fnv_1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_hashed_by_all_values_of_its_header() {
        let key = |hash_on: &str, fields: &[(&str, &str)]| {
            let mut request = FieldList::new();
            fields.iter().for_each(|(name, value)| request.push(name.as_bytes(), value.as_bytes()));
            key_of(&hash_on.parse().unwrap(), 7, &request)
        };
        assert_eq!(key("source", &[("x-user", "a")]), Some(7));
        assert_eq!(key("header:x-user", &[("x-other", "a")]), None);
        let of_a = key("header:X-User", &[("x-other", "b"), ("x-user", "a")]);
        assert_eq!(of_a, key("header:x-user", &[("x-user", "a")]));
        assert_ne!(of_a, key("header:x-user", &[("x-user", "b")]));
        let of_both = key("header:x-user", &[("x-user", "a"), ("x-user", "b")]);
        assert_eq!(of_both, key("header:x-user", &[("x-user", "a,b")]));
    }
}
