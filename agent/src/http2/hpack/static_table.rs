//! HPACK's static table (RFC 7541 Appendix A).

use super::hash;
use crate::http2::name::Name;

pub(in crate::http2) struct StaticField {
    pub(in crate::http2) name: &'static [u8],
    pub(in crate::http2) value: &'static [u8],
    pub(in crate::http2) known: Name,
    pub(in crate::http2) name_hash: u32,
}

/// Entries of the table; dynamic indices start behind it.
pub(in crate::http2) const LEN: u8 = 61;

/// `:status: 200`.
pub(in crate::http2) const STATUS_200: u8 = 8;

/// The entry with that index, 1 to [`LEN`].
pub(in crate::http2) const fn entry(index: u8) -> &'static StaticField {
    &TABLE[index as usize - 1]
}

/// The entry with that name and that value. Entries without a value are only names: no field is found there.
pub(in crate::http2) fn find(name: Name, value: &[u8]) -> Option<u8> {
    let range = match name {
        Name::Method => 2..=3,
        Name::Path => 4..=5,
        Name::Scheme => 6..=7,
        Name::Status => 8..=14,
        Name::AcceptEncoding => 16..=16,
        _ => return None,
    };
    range.into_iter().find(|index| entry(*index).value == value)
}

const fn field(known: Name, name: &'static str, value: &'static str) -> StaticField {
    let name_hash = hash::of_name(name.as_bytes());
    StaticField { name: name.as_bytes(), value: value.as_bytes(), known, name_hash }
}

static TABLE: [StaticField; LEN as usize] = [
    field(Name::Authority, ":authority", ""),
    field(Name::Method, ":method", "GET"),
    field(Name::Method, ":method", "POST"),
    field(Name::Path, ":path", "/"),
    field(Name::Path, ":path", "/index.html"),
    field(Name::Scheme, ":scheme", "http"),
    field(Name::Scheme, ":scheme", "https"),
    field(Name::Status, ":status", "200"),
    field(Name::Status, ":status", "204"),
    field(Name::Status, ":status", "206"),
    field(Name::Status, ":status", "304"),
    field(Name::Status, ":status", "400"),
    field(Name::Status, ":status", "404"),
    field(Name::Status, ":status", "500"),
    field(Name::AcceptCharset, "accept-charset", ""),
    field(Name::AcceptEncoding, "accept-encoding", "gzip, deflate"),
    field(Name::AcceptLanguage, "accept-language", ""),
    field(Name::AcceptRanges, "accept-ranges", ""),
    field(Name::Accept, "accept", ""),
    field(Name::AccessControlAllowOrigin, "access-control-allow-origin", ""),
    field(Name::Age, "age", ""),
    field(Name::Allow, "allow", ""),
    field(Name::Authorization, "authorization", ""),
    field(Name::CacheControl, "cache-control", ""),
    field(Name::ContentDisposition, "content-disposition", ""),
    field(Name::ContentEncoding, "content-encoding", ""),
    field(Name::ContentLanguage, "content-language", ""),
    field(Name::ContentLength, "content-length", ""),
    field(Name::ContentLocation, "content-location", ""),
    field(Name::ContentRange, "content-range", ""),
    field(Name::ContentType, "content-type", ""),
    field(Name::Cookie, "cookie", ""),
    field(Name::Date, "date", ""),
    field(Name::Etag, "etag", ""),
    field(Name::Expect, "expect", ""),
    field(Name::Expires, "expires", ""),
    field(Name::From, "from", ""),
    field(Name::Host, "host", ""),
    field(Name::IfMatch, "if-match", ""),
    field(Name::IfModifiedSince, "if-modified-since", ""),
    field(Name::IfNoneMatch, "if-none-match", ""),
    field(Name::IfRange, "if-range", ""),
    field(Name::IfUnmodifiedSince, "if-unmodified-since", ""),
    field(Name::LastModified, "last-modified", ""),
    field(Name::Link, "link", ""),
    field(Name::Location, "location", ""),
    field(Name::MaxForwards, "max-forwards", ""),
    field(Name::ProxyAuthenticate, "proxy-authenticate", ""),
    field(Name::ProxyAuthorization, "proxy-authorization", ""),
    field(Name::Range, "range", ""),
    field(Name::Referer, "referer", ""),
    field(Name::Refresh, "refresh", ""),
    field(Name::RetryAfter, "retry-after", ""),
    field(Name::Server, "server", ""),
    field(Name::SetCookie, "set-cookie", ""),
    field(Name::StrictTransportSecurity, "strict-transport-security", ""),
    field(Name::TransferEncoding, "transfer-encoding", ""),
    field(Name::UserAgent, "user-agent", ""),
    field(Name::Vary, "vary", ""),
    field(Name::Via, "via", ""),
    field(Name::WwwAuthenticate, "www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_know_their_first_entry_in_the_table() {
        for index in (1..=LEN).rev() {
            let field = entry(index);
            assert_eq!(Name::of(field.name), field.known);
            assert!(field.known.static_index() <= index);
            assert_eq!(entry(field.known.static_index()).name, field.name);
        }
    }
}
