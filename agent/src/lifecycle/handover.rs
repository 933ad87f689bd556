//! The socket between keeper and worker process: labelled file descriptors, and nothing else.
//!
//! A message is one datagram of a `SOCK_SEQPACKET` pair: a byte for its kind, a label, at most one descriptor. What was
//! sent is held: a descriptor in the socket's buffer outlives its sender, and the keeper reads the buffer empty before
//! it acts on the worker's death.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The longest label, in bytes: a pod's UID, a cookie and a few words fit many times.
const MAX_LABEL_BYTES: usize = 512;

/// The environment variable that tells a process that it is the worker, and where its end of the socket is.
pub const KEEPER_FD_ENV: &str = "EVENKEEL_KEEPER_FD";

/// What one side says to the other.
#[derive(Debug)]
pub enum Message {
    /// Worker: hold this for whoever comes after me. Keeper: this was held for you. A label's earlier descriptor is let go.
    Hold(String, OwnedFd),
    /// Worker: hold this as long as you live, and hand it to nobody.
    Keep(String, OwnedFd),
    /// Worker: let go of what has this label.
    Release(String),
    /// Worker: I serve. Keeper: that was everything.
    Ready,
}

/// One end of the socket.
#[derive(Debug)]
pub struct Handover {
    socket: OwnedFd,
}

impl AsFd for Handover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Handover {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl From<OwnedFd> for Handover {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl Handover {
    /// Both ends, closed on exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Has the other side hold a descriptor.
    pub fn hold(&self, label: &str, descriptor: impl AsFd) -> io::Result<()> {
        self.send(b'H', label, Some(descriptor.as_fd()))
    }

    /// Has the keeper hold a descriptor for itself: what must end with the keeper, whoever else still lives.
    pub fn keep(&self, label: &str, descriptor: impl AsFd) -> io::Result<()> {
        self.send(b'K', label, Some(descriptor.as_fd()))
    }

    /// Has the other side let go of a descriptor.
    pub fn release(&self, label: &str) -> io::Result<()> {
        self.send(b'L', label, None)
    }

    /// Says [`Message::Ready`].
    pub fn ready(&self) -> io::Result<()> {
        self.send(b'R', "", None)
    }

    fn send(&self, kind: u8, label: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if label.len() > MAX_LABEL_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a label of {} bytes", label.len()),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.as_slice();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(label.as_bytes())];
        loop {
            match sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The next message, waiting for it unless `nonblocking`. `None`: the other side is gone.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where there is none now; [`io::ErrorKind::InvalidData`] for what is no message.
    pub fn receive(&self, nonblocking: bool) -> io::Result<Option<Message>> {
        let mut bytes = [0; MAX_LABEL_BYTES + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags =
            if nonblocking { RecvFlags::DONTWAIT } else { RecvFlags::empty() } | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                Ok(received) => break received.bytes,
                // The other process died with our words unread.
                Err(Errno::CONNRESET) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let Some((kind, label)) = bytes[..received].split_first() else { return Ok(None) };
        let label = String::from_utf8_lossy(label).into_owned();
        match (kind, descriptor) {
            (b'H', Some(descriptor)) => Ok(Some(Message::Hold(label, descriptor))),
            (b'K', Some(descriptor)) => Ok(Some(Message::Keep(label, descriptor))),
            (b'L', None) => Ok(Some(Message::Release(label))),
            (b'R', None) => Ok(Some(Message::Ready)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an unknown message between keeper and worker",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_descriptor_outlives_the_process_that_sent_it() {
        let (worker, keeper) = Handover::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        worker.hold("pipe/1", &writer).unwrap();
        worker.ready().unwrap();
        drop((worker, writer));
        let Some(Message::Hold(label, held)) = keeper.receive(false).unwrap() else {
            panic!("no descriptor")
        };
        assert_eq!(label, "pipe/1");
        assert!(matches!(keeper.receive(true).unwrap(), Some(Message::Ready)));
        assert!(keeper.receive(true).unwrap().is_none(), "the worker is gone");
        std::fs::File::from(held).write_all(b"still here").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here");
    }

    #[test]
    fn no_message_now_is_told_from_a_peer_that_is_gone() {
        let (worker, keeper) = Handover::pair().unwrap();
        assert_eq!(keeper.receive(true).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(worker);
        assert!(keeper.receive(true).unwrap().is_none());
    }

    #[test]
    fn a_label_that_is_too_long_is_refused_before_it_is_sent() {
        let (worker, _keeper) = Handover::pair().unwrap();
        assert!(worker.release(&"x".repeat(MAX_LABEL_BYTES + 1)).is_err());
    }
}
