//! Field names that somebody asks for: resolved once, when a field is decoded, and compared as numbers from then on.

macro_rules! names {
    ($($variant:ident = $text:literal, $index:literal;)*) => {
        /// A well-known field name: every name of HPACK's static table (RFC 7541 Appendix A), gRPC's, those of trace contexts,
        /// and those that HTTP/2 forbids. Everything else is [`Name::Other`].
        #[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each variant is the field name it is called after")]
        pub enum Name {
            $($variant,)*
            /// Any other name: compare its bytes.
            Other,
        }

        const NAMES: &[Name] = &[$(Name::$variant),*];
        const TEXTS: &[&str] = &[$($text),*];
        /// The first entry of the static table with that name, 0 for none.
        const STATIC_INDICES: &[u8] = &[$($index),*];
    };
}

names! {
    Authority = ":authority", 1;
    Method = ":method", 2;
    Path = ":path", 4;
    Scheme = ":scheme", 6;
    Status = ":status", 8;
    Connection = "connection", 0;
    KeepAlive = "keep-alive", 0;
    ProxyConnection = "proxy-connection", 0;
    TransferEncoding = "transfer-encoding", 57;
    Upgrade = "upgrade", 0;
    Te = "te", 0;
    ContentLength = "content-length", 28;
    AcceptCharset = "accept-charset", 15;
    AcceptEncoding = "accept-encoding", 16;
    AcceptLanguage = "accept-language", 17;
    AcceptRanges = "accept-ranges", 18;
    Accept = "accept", 19;
    AccessControlAllowOrigin = "access-control-allow-origin", 20;
    Age = "age", 21;
    Allow = "allow", 22;
    Authorization = "authorization", 23;
    CacheControl = "cache-control", 24;
    ContentDisposition = "content-disposition", 25;
    ContentEncoding = "content-encoding", 26;
    ContentLanguage = "content-language", 27;
    ContentLocation = "content-location", 29;
    ContentRange = "content-range", 30;
    ContentType = "content-type", 31;
    Cookie = "cookie", 32;
    Date = "date", 33;
    Etag = "etag", 34;
    Expect = "expect", 35;
    Expires = "expires", 36;
    From = "from", 37;
    Host = "host", 38;
    IfMatch = "if-match", 39;
    IfModifiedSince = "if-modified-since", 40;
    IfNoneMatch = "if-none-match", 41;
    IfRange = "if-range", 42;
    IfUnmodifiedSince = "if-unmodified-since", 43;
    LastModified = "last-modified", 44;
    Link = "link", 45;
    Location = "location", 46;
    MaxForwards = "max-forwards", 47;
    ProxyAuthenticate = "proxy-authenticate", 48;
    ProxyAuthorization = "proxy-authorization", 49;
    Range = "range", 50;
    Referer = "referer", 51;
    Refresh = "refresh", 52;
    RetryAfter = "retry-after", 53;
    Server = "server", 54;
    SetCookie = "set-cookie", 55;
    StrictTransportSecurity = "strict-transport-security", 56;
    UserAgent = "user-agent", 58;
    Vary = "vary", 59;
    Via = "via", 60;
    WwwAuthenticate = "www-authenticate", 61;
    GrpcAcceptEncoding = "grpc-accept-encoding", 0;
    GrpcEncoding = "grpc-encoding", 0;
    GrpcMessage = "grpc-message", 0;
    GrpcPreviousRpcAttempts = "grpc-previous-rpc-attempts", 0;
    GrpcRetryPushbackMs = "grpc-retry-pushback-ms", 0;
    GrpcStatus = "grpc-status", 0;
    GrpcTimeout = "grpc-timeout", 0;
    Traceparent = "traceparent", 0;
    Tracestate = "tracestate", 0;
    B3 = "b3", 0;
    XB3TraceId = "x-b3-traceid", 0;
    XB3SpanId = "x-b3-spanid", 0;
    XB3ParentSpanId = "x-b3-parentspanid", 0;
    XB3Sampled = "x-b3-sampled", 0;
    XB3Flags = "x-b3-flags", 0;
    Baggage = "baggage", 0;
    XRequestId = "x-request-id", 0;
    XForwardedFor = "x-forwarded-for", 0;
    XForwardedProto = "x-forwarded-proto", 0;
    Forwarded = "forwarded", 0;
}

const SLOTS: usize = 256;
const EMPTY: u8 = u8::MAX;
/// Open addressing from [`slot`]: at most a probe or two, and one comparison of bytes on a hit.
const LOOKUP: [u8; SLOTS] = build_lookup();

const fn slot(name: &[u8]) -> usize {
    let length = name.len();
    let (first, middle, last) = (name[0] as usize, name[length / 2] as usize, name[length - 1] as usize);
    length.wrapping_mul(29) ^ first.wrapping_mul(7) ^ middle.wrapping_mul(53) ^ last.wrapping_mul(193)
}

const fn build_lookup() -> [u8; SLOTS] {
    let mut table = [EMPTY; SLOTS];
    let mut i = 0;
    while i < NAMES.len() {
        let mut at = slot(TEXTS[i].as_bytes()) % SLOTS;
        while table[at] != EMPTY {
            at = (at + 1) % SLOTS;
        }
        table[at] = i as u8;
        i += 1;
    }
    table
}

impl Name {
    /// The well-known name with these bytes (lower-case, as HTTP/2 has them), or [`Name::Other`].
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self::Other;
        }
        let mut at = slot(name) % SLOTS;
        loop {
            match LOOKUP[at] {
                EMPTY => return Self::Other,
                known if TEXTS[usize::from(known)].as_bytes() == name => return NAMES[usize::from(known)],
                _ => at = (at + 1) % SLOTS,
            }
        }
    }

    /// Its bytes; empty for [`Name::Other`].
    #[must_use]
    pub fn as_bytes(self) -> &'static [u8] {
        TEXTS.get(self as usize).map_or(&[], |text| text.as_bytes())
    }

    /// The first entry of HPACK's static table with this name; 0 if there is none.
    pub(super) fn static_index(self) -> u8 {
        STATIC_INDICES.get(self as usize).copied().unwrap_or(0)
    }

    pub(super) fn is_pseudo(self) -> bool {
        (self as u8) <= Name::Status as u8
    }

    /// RFC 9113 §8.2.2: these make a message malformed.
    pub(super) fn is_connection_specific(self) -> bool {
        (Self::Connection as u8..=Self::Upgrade as u8).contains(&(self as u8))
    }

    /// Whether HTTP/2 has no rule of its own about it. The names with rules stand first, so that this is one comparison.
    pub(super) fn is_plain(self) -> bool {
        self as u8 > Self::ContentLength as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_by_its_bytes() {
        for (name, text) in NAMES.iter().zip(TEXTS) {
            assert_eq!(Name::of(text.as_bytes()), *name);
            assert_eq!(name.as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn unknown_and_empty_names_are_other() {
        for name in [&b""[..], b"x", b":protocol", b"grpc-statux", b"content-typf"] {
            assert_eq!(Name::of(name), Name::Other);
        }
    }
}
