//! What load and backend say to each other: gRPC messages that name their call, so that an answer that went astray,
//! or lost a byte, is seen.

use bytes::BufMut as _;

/// gRPC's prefix of a message: one byte of flags, four of length.
pub(crate) const PREFIX: usize = 5;
/// What a request's message begins with.
pub(crate) const ORDER: usize = 16;
/// What an answer's message begins with: the backend's number, the call's, the message's.
const HEAD: usize = 13;
/// What an answer's message ends with: the call's number again.
const TAIL: usize = 8;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) call: u64,
    /// Bytes of each message.
    pub(crate) message: u32,
    pub(crate) messages: u32,
}

impl Order {
    /// Writes the request's only message, `size` bytes long, behind `out`.
    pub(crate) fn write(&self, size: usize, out: &mut Vec<u8>) {
        let end = out.len() + PREFIX + size.max(ORDER);
        out.put_u8(0);
        out.put_u32(size.max(ORDER) as u32);
        out.put_u64(self.call);
        out.put_u32(self.message);
        out.put_u32(self.messages);
        out.resize(end, 0x5a);
    }

    /// From the start of a request; `None` if it is too short.
    pub(crate) fn decode(request: &[u8]) -> Option<Self> {
        let order = request.get(PREFIX..PREFIX + ORDER)?;
        let word = |at: usize| Some(u32::from_be_bytes(order.get(at..at + 4)?.try_into().ok()?));
        let call = u64::from_be_bytes(order.get(..8)?.try_into().ok()?);
        Some(Self { call, message: word(8)?, messages: word(12)? })
    }

    /// Bytes of a whole answer, prefixes included.
    pub(crate) fn answer_size(&self) -> usize {
        self.messages as usize * (PREFIX + self.message as usize)
    }

    /// Writes the answer's message of that number behind `out`.
    pub(crate) fn write_answer(&self, backend: u8, number: u32, out: &mut Vec<u8>) {
        let end = out.len() + PREFIX + self.message as usize;
        out.put_u8(0);
        out.put_u32(self.message);
        out.put_u8(backend);
        out.put_u64(self.call);
        out.put_u32(number);
        out.resize(end - TAIL, 0xa5);
        out.put_u64(self.call);
    }
}

/// Checks an answer as its bytes come, however they are cut.
pub(crate) struct Answer {
    order: Order,
    /// Bytes seen.
    seen: usize,
    /// Who answered; known after the first message's head.
    backend: Option<u8>,
    edge: [u8; PREFIX + HEAD],
    tail: [u8; TAIL],
}

impl Answer {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, seen: 0, backend: None, edge: [0; PREFIX + HEAD], tail: [0; TAIL] }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// If they are not what was asked for.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let size = PREFIX + self.order.message as usize;
        if self.seen + bytes.len() > self.order.answer_size() {
            return Err(format!("more than {} bytes", self.order.answer_size()));
        }
        while !bytes.is_empty() {
            let at = self.seen % size;
            // The next run of bytes that are treated alike: head, filling, or tail.
            let (run, kept) = if at < self.edge.len() {
                let run = bytes.len().min(self.edge.len() - at);
                (run, Some(&mut self.edge[at..at + run]))
            } else if at < size - TAIL {
                (bytes.len().min(size - TAIL - at), None)
            } else {
                let run = bytes.len().min(size - at);
                let from = at - (size - TAIL);
                (run, Some(&mut self.tail[from..from + run]))
            };
            if let Some(kept) = kept {
                kept.copy_from_slice(&bytes[..run]);
            }
            bytes = &bytes[run..];
            self.seen += run;
            if at + run == self.edge.len() {
                self.check_head((self.seen / size) as u32)?;
            } else if at + run == size && u64::from_be_bytes(self.tail) != self.order.call {
                return Err("a message ends as another call's".into());
            }
        }
        Ok(())
    }

    /// The backend that answered.
    ///
    /// # Errors
    /// If the answer is not complete.
    pub(crate) fn finish(self) -> Result<u8, String> {
        match self.backend {
            Some(backend) if self.seen == self.order.answer_size() => Ok(backend),
            _ => Err(format!("{} bytes instead of {}", self.seen, self.order.answer_size())),
        }
    }

    fn check_head(&mut self, number: u32) -> Result<(), String> {
        let expected = self.order.answer_head(self.edge[PREFIX], number);
        if self.edge != expected {
            return Err(format!("a message begins {:02x?} instead of {expected:02x?}", self.edge));
        }
        if *self.backend.get_or_insert(self.edge[PREFIX]) != self.edge[PREFIX] {
            return Err("messages of two backends".into());
        }
        Ok(())
    }
}

impl Order {
    fn answer_head(&self, backend: u8, number: u32) -> [u8; PREFIX + HEAD] {
        let mut head = [0; PREFIX + HEAD];
        head[1..5].copy_from_slice(&self.message.to_be_bytes());
        head[5] = backend;
        head[6..14].copy_from_slice(&self.call.to_be_bytes());
        head[14..18].copy_from_slice(&number.to_be_bytes());
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Order = Order { call: 7, message: 64, messages: 3 };

    fn whole(order: &Order) -> Vec<u8> {
        let mut whole = Vec::new();
        (0..order.messages).for_each(|number| order.write_answer(2, number, &mut whole));
        whole
    }

    #[test]
    fn a_request_names_what_it_asks_for() {
        let mut request = Vec::new();
        ORDER.write(1024, &mut request);
        assert_eq!((Order::decode(&request), request.len()), (Some(ORDER), PREFIX + 1024));
    }

    #[test]
    fn a_right_answer_is_taken_however_it_is_cut() {
        for cut in 1..=whole(&ORDER).len() {
            let mut answer = Answer::new(ORDER);
            whole(&ORDER).chunks(cut).for_each(|bytes| answer.take(bytes).unwrap());
            assert_eq!(answer.finish(), Ok(2), "in pieces of {cut}");
        }
    }

    #[test]
    fn a_wrong_answer_is_refused() {
        let right = whole(&ORDER);
        let lost = [&right[..100], &right[101..]].concat();
        let doubled = [&right[..69], &right[..]].concat();
        let of_another_call = whole(&Order { call: 8, ..ORDER });
        let cut_short = right[..right.len() - 1].to_vec();
        for wrong in [lost, doubled, of_another_call, cut_short] {
            let mut answer = Answer::new(ORDER);
            assert!(answer.take(&wrong).and_then(|()| answer.finish()).is_err());
        }
    }
}
