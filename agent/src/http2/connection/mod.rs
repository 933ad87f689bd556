//! One end of an HTTP/2 connection. Bodies are being filled in.
#![allow(
    unused_variables,
    missing_docs,
    reason = "signatures first, so that the relay can be written against them"
)]

mod event;

pub use event::{Event, HeadersKind, LastStream, OpenError, Progress};

use super::error::{ConnectionError, ErrorCode};
use super::fields::FieldList;
use super::limits::Limits;
use super::stream::StreamKey;

/// One end of an HTTP/2 connection.
#[derive(Debug)]
pub struct Connection;

#[allow(clippy::todo, reason = "see above")]
impl Connection {
    pub fn server(limits: &Limits) -> Self {
        todo!()
    }
    pub fn client(limits: &Limits) -> Self {
        todo!()
    }
    pub fn restore(&mut self, buffer: &mut [u8]) -> usize {
        todo!()
    }
    pub fn receive<'i>(
        &mut self,
        input: &mut &'i [u8],
        fields: &mut FieldList,
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        todo!()
    }
    pub fn keep(&mut self, rest: &[u8]) {
        todo!()
    }
    pub fn open(&mut self, fields: &FieldList, end_stream: bool, token: u32) -> Result<StreamKey, OpenError> {
        todo!()
    }
    pub fn can_open(&self) -> bool {
        todo!()
    }
    pub fn open_streams(&self) -> u32 {
        todo!()
    }
    pub fn set_token(&mut self, stream: StreamKey, token: u32) {
        todo!()
    }
    pub fn send_headers(&mut self, stream: StreamKey, fields: &FieldList, end_stream: bool) {
        todo!()
    }
    pub fn send_data(&mut self, stream: StreamKey, payload: &[u8], end_stream: bool) -> usize {
        todo!()
    }
    pub fn send_trailers(&mut self, stream: StreamKey, fields: &FieldList) {
        todo!()
    }
    pub fn queued(&self, stream: StreamKey) -> usize {
        todo!()
    }
    pub fn grant(&mut self, stream: StreamKey, bytes: u32) {
        todo!()
    }
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode) {
        todo!()
    }
    pub fn is_closed(&self, stream: StreamKey) -> bool {
        todo!()
    }
    pub fn release(&mut self, stream: StreamKey) {
        todo!()
    }
    pub fn wants_advance(&self) -> bool {
        todo!()
    }
    pub fn advance(&mut self, progress: &mut Vec<Progress>) {
        todo!()
    }
    pub fn ping(&mut self, payload: [u8; 8]) {
        todo!()
    }
    pub fn go_away(&mut self, code: ErrorCode, last_stream: LastStream) {
        todo!()
    }
    pub fn output(&self) -> &[u8] {
        todo!()
    }
    pub fn sent(&mut self, bytes: usize) {
        todo!()
    }
    pub fn peer_max_concurrent_streams(&self) -> u32 {
        todo!()
    }
    pub fn held_bytes(&self) -> usize {
        todo!()
    }
}
