//! What a header list must look like to be a request's, a response's, or trailers (RFC 9113 §8.2 and §8.3). A list that
//! does not is malformed: a stream error (§8.1.1).

use super::fields::FieldList;
use super::name::Name;

/// The message breaks a rule of HTTP.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// What a response's header list starts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum ResponseKind {
    /// 1xx: another one follows.
    Informational,
    Final,
}

/// A request's list. A `host` instead of `:authority` is legal, and so is neither. Extended CONNECT is not offered, so
/// that `:protocol` is an unknown pseudo-header field like any other (RFC 8441 §4).
pub(super) fn check_request(fields: &FieldList) -> Result<(), Malformed> {
    let seen = pseudo_fields(fields)?;
    // A method, a scheme and a path, as nearly every request.
    if seen & !bit(Name::Authority) != bit(Name::Method) | bit(Name::Scheme) | bit(Name::Path) {
        let is_plain_connect = seen == bit(Name::Method) | bit(Name::Authority);
        let connects = is_plain_connect && fields.find(Name::Method) == Some(b"CONNECT");
        return if connects { Ok(()) } else { Err(Malformed) };
    }
    let path = fields.find(Name::Path).unwrap_or_default();
    let is_connect = fields.find(Name::Method) == Some(b"CONNECT");
    if (path.first() == Some(&b'/') || path == b"*") && !is_connect { Ok(()) } else { Err(Malformed) }
}

/// A response's list.
pub(super) fn check_response(fields: &FieldList) -> Result<ResponseKind, Malformed> {
    if pseudo_fields(fields)? != bit(Name::Status) {
        return Err(Malformed);
    }
    match fields.find(Name::Status) {
        // There is no switch of protocols in HTTP/2 (RFC 9113 §8.6).
        Some(b"101") => Err(Malformed),
        Some([b'1', b'0'..=b'9', b'0'..=b'9']) => Ok(ResponseKind::Informational),
        Some([b'2'..=b'9', b'0'..=b'9', b'0'..=b'9']) => Ok(ResponseKind::Final),
        _ => Err(Malformed),
    }
}

/// Trailers: no pseudo-header field (RFC 9113 §8.1).
pub(super) fn check_trailers(fields: &FieldList) -> Result<(), Malformed> {
    if pseudo_fields(fields)? == 0 { Ok(()) } else { Err(Malformed) }
}

fn bit(name: Name) -> u8 {
    1 << name as u8
}

/// The set of pseudo-header fields, each at most once and all of them in front; and no field that belongs to a
/// connection rather than a message (RFC 9113 §8.2.2).
fn pseudo_fields(fields: &FieldList) -> Result<u8, Malformed> {
    let mut seen = 0;
    let mut in_front = true;
    for entry in &fields.entries {
        if entry.name.is_pseudo() {
            if !in_front || seen & bit(entry.name) != 0 {
                return Err(Malformed);
            }
            seen |= bit(entry.name);
            continue;
        }
        in_front = false;
        let is_forbidden = entry.name.is_connection_specific()
            || (entry.name == Name::Te && fields.field(entry).value != b"trailers");
        if is_forbidden {
            return Err(Malformed);
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &str)]) -> FieldList {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        list
    }

    #[test]
    fn requests() {
        const M: (&str, &str) = (":method", "POST");
        const S: (&str, &str) = (":scheme", "http");
        const P: (&str, &str) = (":path", "/a/b");
        const A: (&str, &str) = (":authority", "a");
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);
        let cases: &[Case<'_>] = &[
            ("complete", &[M, S, P, A], true),
            ("host and no authority", &[M, S, P, ("host", "a")], true),
            ("neither", &[M, S, P], true),
            ("te: trailers", &[M, S, P, ("te", "trailers")], true),
            ("te: gzip", &[M, S, P, ("te", "gzip")], false),
            ("connection", &[M, S, P, ("connection", "close")], false),
            ("keep-alive", &[M, S, P, ("keep-alive", "1")], false),
            ("proxy-connection", &[M, S, P, ("proxy-connection", "1")], false),
            ("transfer-encoding", &[M, S, P, ("transfer-encoding", "chunked")], false),
            ("upgrade", &[M, S, P, ("upgrade", "h2c")], false),
            ("no method", &[S, P], false),
            ("no scheme", &[M, P], false),
            ("no path", &[M, S], false),
            ("empty path", &[M, S, (":path", "")], false),
            ("relative path", &[M, S, (":path", "a")], false),
            ("asterisk", &[(":method", "OPTIONS"), S, (":path", "*")], true),
            ("method twice", &[M, M, S, P], false),
            ("pseudo behind regular", &[M, S, ("a", "b"), P], false),
            ("status in a request", &[M, S, P, (":status", "200")], false),
            ("connect", &[(":method", "CONNECT"), A], true),
            ("connect without authority", &[(":method", "CONNECT")], false),
            ("connect with a path", &[(":method", "CONNECT"), A, P], false),
        ];
        for (what, fields, valid) in cases {
            assert_eq!(check_request(&list(fields)).is_ok(), *valid, "{what}");
        }
    }

    #[test]
    fn responses() {
        for (status, expected) in [
            ("200", Ok(ResponseKind::Final)),
            ("503", Ok(ResponseKind::Final)),
            ("100", Ok(ResponseKind::Informational)),
            ("103", Ok(ResponseKind::Informational)),
            ("101", Err(Malformed)),
            ("20", Err(Malformed)),
            ("2000", Err(Malformed)),
            ("abc", Err(Malformed)),
            ("099", Err(Malformed)),
        ] {
            assert_eq!(check_response(&list(&[(":status", status)])), expected, "{status}");
        }
        assert_eq!(check_response(&list(&[("a", "b")])), Err(Malformed));
        assert_eq!(check_response(&list(&[(":status", "200"), (":path", "/")])), Err(Malformed));
    }

    #[test]
    fn trailers_hold_no_pseudo_header_field() {
        assert_eq!(check_trailers(&list(&[("grpc-status", "0")])), Ok(()));
        assert_eq!(check_trailers(&list(&[(":status", "200")])), Err(Malformed));
        assert_eq!(check_trailers(&list(&[("connection", "close")])), Err(Malformed));
    }
}
