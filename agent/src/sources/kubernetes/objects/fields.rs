//! Fields that several kinds have: transports, ports, addresses.

use super::Remarks;
use crate::sources::rows::Transport;
use std::net::IpAddr;

pub(super) fn transport(protocol: Option<&str>) -> Transport {
    match protocol {
        None | Some("" | "TCP") => Transport::Tcp,
        Some(_) => Transport::Other,
    }
}

pub(super) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

pub(super) fn addresses<'a>(
    what: &str,
    texts: impl Iterator<Item = &'a str>,
    remarks: &mut Remarks,
) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in texts {
        match usable_address(text) {
            Some(address) if !addresses.contains(&address) => addresses.push(address),
            Some(_) => {}
            None => {
                remarks.push(format!("{what} \"{}\" is not an address: passed over", text.escape_debug()));
            }
        }
    }
    addresses
}

/// The address, if something can be reached at it. One form of it only: an IPv4 address that is written as an IPv6 one
/// would be captured as the one and dialled as the other.
pub(super) fn usable_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}
