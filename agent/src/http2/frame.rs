//! Frames on the wire (RFC 9113 §4 and §6): the nine bytes in front, and the constants.

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
