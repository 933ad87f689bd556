//! What one connection may cost.

/// First credit of a stream: the protocol's default, so that it holds before the peer has seen our SETTINGS as well.
const STREAM_WINDOW_BYTES: u32 = 65_535;
/// A stream that is read as fast as it comes grows to this: 4 MiB carries 1 Gbit/s over 30 ms.
const MAX_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Credit of the connection, given back on receipt: only what is on the way counts.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Calls that one client may have in flight on one connection; servers in the field allow from 100 to no limit.
const MAX_CONCURRENT_STREAMS: u32 = 1_000;
/// Header list, RFC 9113 §6.5.2 counting. gRPC's own default is 8 to 16 KiB; long tokens come near it.
const MAX_HEADER_LIST_BYTES: u32 = 64 << 10;
/// Fields in a header list: a list of one-byte references costs the receiver far more than its sender.
const MAX_HEADER_FIELDS: u32 = 256;
/// HPACK's default dynamic table: peers keep to it, and an idle connection stays small.
const HEADER_TABLE_BYTES: u32 = 4_096;
/// Output that waits for the socket before DATA is queued in its stream instead.
const MAX_OUTPUT_BYTES: usize = 256 << 10;

/// What one connection may cost; the defaults are this file's constants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes a peer may send on a fresh stream before it hears from us (SETTINGS_INITIAL_WINDOW_SIZE).
    pub stream_window: u32,
    /// Bytes to which a stream's window doubles as long as its consumer keeps up.
    pub max_stream_window: u32,
    /// Bytes of the connection's window; credit comes back on receipt, so stalled streams never stall it. Values below
    /// the protocol's 65,535 count as that.
    pub connection_window: u32,
    /// Streams that a client may have open (announced by a server).
    pub max_concurrent_streams: u32,
    /// Bytes of a decoded header list (RFC 9113 §6.5.2), and of an encoded block.
    pub max_header_list: u32,
    /// Fields of a decoded header list.
    pub max_header_fields: u32,
    /// Bytes of our decoder's dynamic table, and the most that our encoder uses of the peer's.
    pub header_table: u32,
    /// Bytes of output beyond which DATA is queued in its stream.
    pub max_output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: STREAM_WINDOW_BYTES,
            max_stream_window: MAX_STREAM_WINDOW_BYTES,
            connection_window: CONNECTION_WINDOW_BYTES,
            max_concurrent_streams: MAX_CONCURRENT_STREAMS,
            max_header_list: MAX_HEADER_LIST_BYTES,
            max_header_fields: MAX_HEADER_FIELDS,
            header_table: HEADER_TABLE_BYTES,
            max_output: MAX_OUTPUT_BYTES,
        }
    }
}
