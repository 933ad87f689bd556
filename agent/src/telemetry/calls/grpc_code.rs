//! gRPC's status codes by their names.

/// The codes, by their numbers.
pub const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a code; `UNKNOWN`, as clients have it, for what is none.
pub fn grpc_code_name(code: u8) -> &'static str {
    GRPC_CODES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
}
