//! What a header list must look like to be a request's, a response's, or trailers (RFC 9113 §8.2 and §8.3). A list that
//! does not is malformed: a stream error (§8.1.1).

use super::fields::{Entry, FieldList};
use super::hpack::static_table;
use super::name::Name;

/// The message breaks a rule of HTTP.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// No `content-length`, or one that says nothing about DATA.
pub(super) const UNKNOWN_LENGTH: u64 = u64::MAX;

/// A request's header list is right.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) connects: bool,
    /// Bytes of the body, or [`UNKNOWN_LENGTH`].
    pub(super) body: u64,
}

/// A response's header list is right.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Response {
    /// 1xx: another one follows.
    Informational,
    /// The body's bytes, or [`UNKNOWN_LENGTH`].
    Final { body: u64 },
}

/// A request's list. A `host` instead of `:authority` is legal, and so is neither. Extended CONNECT is not offered, so
/// that `:protocol` is an unknown pseudo-header field like any other (RFC 8441 §4).
pub(super) fn check_request(fields: &FieldList) -> Result<Request, Malformed> {
    let Checked { pseudo, content_length, at } = check_fields(fields)?;
    // A method, a scheme and a path, as nearly every request.
    if pseudo & !bit(Name::Authority) != bit(Name::Method) | bit(Name::Scheme) | bit(Name::Path) {
        let is_plain_connect = pseudo == bit(Name::Method) | bit(Name::Authority);
        let connects = is_plain_connect && fields.find(Name::Method) == Some(b"CONNECT");
        return if connects { Ok(Request { connects, body: UNKNOWN_LENGTH }) } else { Err(Malformed) };
    }
    let entry = |name: Name| &fields.entries[usize::from(at[name as usize])];
    let (path, method) = (fields.field(entry(Name::Path)).value, entry(Name::Method));
    // GET and POST are entries of the static table.
    let connects = method.whole_static == 0 && fields.field(method).value == b"CONNECT";
    if (path.first() == Some(&b'/') || path == b"*") && !connects {
        Ok(Request { connects: false, body: content_length })
    } else {
        Err(Malformed)
    }
}

/// A response's list; `to_head`: the request's method was HEAD, whose answer says the length of a body that it has not.
pub(super) fn check_response(fields: &FieldList, to_head: bool) -> Result<Response, Malformed> {
    let Checked { pseudo, content_length, .. } = check_fields(fields)?;
    if pseudo != bit(Name::Status) {
        return Err(Malformed);
    }
    let whole = Response::Final { body: if to_head { UNKNOWN_LENGTH } else { content_length } };
    let status = &fields.entries[0];
    if status.whole_static == static_table::STATUS_200 {
        return Ok(whole);
    }
    match fields.field(status).value {
        // There is no switch of protocols in HTTP/2 (RFC 9113 §8.6).
        b"101" => Err(Malformed),
        [b'1', b'0'..=b'9', b'0'..=b'9'] => Ok(Response::Informational),
        // RFC 9110 §8.6: it may say what a 200 would have had.
        b"304" => Ok(Response::Final { body: UNKNOWN_LENGTH }),
        [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9'] => Ok(whole),
        _ => Err(Malformed),
    }
}

/// Trailers: no pseudo-header field (RFC 9113 §8.1).
pub(super) fn check_trailers(fields: &FieldList) -> Result<(), Malformed> {
    if check_fields(fields)?.pseudo == 0 { Ok(()) } else { Err(Malformed) }
}

/// So many pseudo-header fields there are.
const PSEUDO_FIELDS: usize = 5;

fn bit(name: Name) -> u8 {
    1 << name as u8
}

struct Checked {
    /// The set of pseudo-header fields.
    pseudo: u8,
    /// And where each of them is: in front.
    at: [u8; PSEUDO_FIELDS],
    content_length: u64,
}

/// Pseudo-header fields each at most once and all of them in front; no field that belongs to a connection rather than a
/// message (RFC 9113 §8.2.2); one length of the body at most (RFC 9110 §8.6).
#[inline(always)]
fn check_fields(fields: &FieldList) -> Result<Checked, Malformed> {
    let mut checked = Checked { pseudo: 0, at: [0; PSEUDO_FIELDS], content_length: UNKNOWN_LENGTH };
    let mut entries = fields.entries.iter().enumerate();
    for (place, entry) in entries.by_ref() {
        if !entry.name.is_pseudo() {
            check_plain(fields, entry, &mut checked.content_length)?;
            break;
        }
        if checked.pseudo & bit(entry.name) != 0 {
            return Err(Malformed);
        }
        checked.pseudo |= bit(entry.name);
        checked.at[entry.name as usize] = place as u8;
    }
    for (_, entry) in entries {
        if entry.name.is_pseudo() {
            return Err(Malformed);
        }
        check_plain(fields, entry, &mut checked.content_length)?;
    }
    Ok(checked)
}

/// A field that is no pseudo-header field.
#[inline(always)]
fn check_plain(fields: &FieldList, entry: &Entry, content_length: &mut u64) -> Result<(), Malformed> {
    if entry.name.is_plain() { Ok(()) } else { check_special(fields, entry, content_length) }
}

fn check_special(fields: &FieldList, entry: &Entry, content_length: &mut u64) -> Result<(), Malformed> {
    let value = fields.field(entry).value;
    let is_right = match entry.name {
        Name::Te => value == b"trailers",
        Name::ContentLength => {
            let length = number(value).ok_or(Malformed)?;
            let other = std::mem::replace(content_length, length);
            other == UNKNOWN_LENGTH || other == length
        }
        name => !name.is_connection_specific(),
    };
    if is_right { Ok(()) } else { Err(Malformed) }
}

/// A decimal number below 2^64 - 1.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit).filter(|number| *number != UNKNOWN_LENGTH)
    })
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
            ("content-length", &[M, S, P, ("content-length", "17")], true),
            (
                "content-length twice the same",
                &[M, S, P, ("content-length", "1"), ("content-length", "1")],
                true,
            ),
            ("two lengths", &[M, S, P, ("content-length", "1"), ("content-length", "2")], false),
            ("negative length", &[M, S, P, ("content-length", "-1")], false),
            ("empty length", &[M, S, P, ("content-length", "")], false),
            ("length beyond 64 bits", &[M, S, P, ("content-length", "18446744073709551616")], false),
        ];
        for (what, fields, valid) in cases {
            assert_eq!(check_request(&list(fields)).is_ok(), *valid, "{what}");
        }
    }

    #[test]
    fn responses() {
        let body = UNKNOWN_LENGTH;
        for (status, expected) in [
            ("200", Ok(Response::Final { body })),
            ("503", Ok(Response::Final { body })),
            ("100", Ok(Response::Informational)),
            ("103", Ok(Response::Informational)),
            ("101", Err(Malformed)),
            ("20", Err(Malformed)),
            ("2000", Err(Malformed)),
            ("abc", Err(Malformed)),
            ("099", Err(Malformed)),
        ] {
            assert_eq!(check_response(&list(&[(":status", status)]), false), expected, "{status}");
        }
        assert_eq!(check_response(&list(&[("a", "b")]), false), Err(Malformed));
        assert_eq!(check_response(&list(&[(":status", "200"), (":path", "/")]), false), Err(Malformed));
    }

    #[test]
    fn a_content_length_says_what_body_follows_unless_there_is_none_by_status_or_method() {
        let of =
            |status, to_head| check_response(&list(&[(":status", status), ("content-length", "5")]), to_head);
        assert_eq!(of("200", false), Ok(Response::Final { body: 5 }));
        assert_eq!(of("200", true), Ok(Response::Final { body: UNKNOWN_LENGTH }));
        assert_eq!(of("304", false), Ok(Response::Final { body: UNKNOWN_LENGTH }));
    }

    #[test]
    fn trailers_hold_no_pseudo_header_field() {
        assert_eq!(check_trailers(&list(&[("grpc-status", "0")])), Ok(()));
        assert_eq!(check_trailers(&list(&[(":status", "200")])), Err(Malformed));
        assert_eq!(check_trailers(&list(&[("connection", "close")])), Err(Malformed));
    }
}
