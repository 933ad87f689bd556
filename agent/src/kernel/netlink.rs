//! A request to the kernel's netlink, inside of a pod's network namespace, and its answers.

use super::netns::{Netns, set_option};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// Answers come in pieces of up to 32 KiB: the kernel's limit for a dump.
const PIECE_BYTES: usize = 32 * 1024;

/// How long the kernel may take for an answer: it answers at once, so this only bounds a surprise.
const ANSWER_SECONDS: i64 = 5;

/// A netlink socket inside of a namespace.
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens a socket for `NETLINK_…` in the namespace.
    pub(super) fn open(netns: &Netns, protocol: i32) -> io::Result<Self> {
        let socket = netns.socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol, None)?;
        let patience = libc::timeval { tv_sec: ANSWER_SECONDS, tv_usec: 0 };
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
        Ok(Self { socket })
    }

    /// Sends a request and reads its answers, to the end. The kernel's refusal is an error.
    pub(super) fn request<Request, Answer>(&self, request: Request, flags: u16) -> io::Result<Vec<Answer>>
    where
        Request: NetlinkSerializable + Into<NetlinkPayload<Request>>,
        Answer: NetlinkDeserializable + Debug,
    {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send(&bytes)?;

        let mut answers = Vec::new();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = self.receive(&mut piece)?;
            let mut rest = piece.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Answer>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are aligned to four bytes, the last one perhaps not.
                let used = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    // An acknowledgement: all there is.
                    NetlinkPayload::Error(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
                if flags & (NLM_F_ACK | netlink_packet_core::NLM_F_DUMP) == 0 {
                    return Ok(answers);
                }
                rest = rest.get(used.max(1)..).unwrap_or_default();
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is as long as said.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is as long as said.
        let got = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match got {
            ..0 => Err(io::Error::last_os_error()),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(got as usize),
        }
    }
}
