//! What front and server tell each other, over a SOCK_SEQPACKET pair.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno as OsErrno;
use nix::sys::socket::{MsgFlags, recv, send};

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Server: the program runs under this process id.
    Started(i32),
    /// Server: the program stopped on this signal.
    Stopped(i32),
    /// Server: the program goes on.
    Continued,
    /// Server: the program (or its start) ended with this status.
    Exited(i32),
    /// Server: the program was killed by this signal.
    Killed(i32),
    /// Server: nothing of the tree is left, so server and keeper end at once.
    TreeEnded,
    /// Front: pass this signal on.
    Signal(i32),
    /// Front: it was continued after this many stops; continue the program if it is still in the last of them.
    Resume(i32),
}

impl Message {
    /// Bytes of any message.
    pub const SIZE: usize = 5;

    /// Takes a received message apart; `None` for anything else, such as the empty one of a closed socket.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Message::decode(bytes.try_into().ok()?)
    }

    fn encode(self) -> [u8; Message::SIZE] {
        let (tag, value) = match self {
            Message::Started(pid) => (0, pid),
            Message::Stopped(signal) => (1, signal),
            Message::Continued => (2, 0),
            Message::Exited(status) => (3, status),
            Message::Killed(signal) => (4, signal),
            Message::Signal(signal) => (5, signal),
            Message::Resume(stops) => (6, stops),
            Message::TreeEnded => (7, 0),
        };
        let [a, b, c, d] = value.to_ne_bytes();
        [tag, a, b, c, d]
    }

    fn decode([tag, a, b, c, d]: [u8; Message::SIZE]) -> Option<Self> {
        let value = i32::from_ne_bytes([a, b, c, d]);
        Some(match tag {
            0 => Message::Started(value),
            1 => Message::Stopped(value),
            2 => Message::Continued,
            3 => Message::Exited(value),
            4 => Message::Killed(value),
            5 => Message::Signal(value),
            6 => Message::Resume(value),
            7 => Message::TreeEnded,
            _ => return None,
        })
    }

    /// Sends the message; nobody is there to hear of a failure.
    pub fn send(self, socket: &impl AsFd) {
        let _ = send(socket.as_fd().as_raw_fd(), &self.encode(), MsgFlags::MSG_NOSIGNAL);
    }

    /// Receives a message without waiting. `Ok(None)`: the other side is gone.
    pub fn receive(socket: &impl AsFd) -> Result<Option<Self>, OsErrno> {
        let mut bytes = [0u8; Message::SIZE];
        let mut once = || recv(socket.as_fd().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
        let len = match once() {
            // The other side left without reading what was sent to it. What it had said before comes after this.
            Err(OsErrno::ECONNRESET) => once()?,
            result => result?,
        };
        Ok(Message::from_bytes(&bytes[..len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        for message in [
            Message::Started(7),
            Message::Stopped(20),
            Message::Continued,
            Message::Exited(-1),
            Message::Killed(9),
            Message::Signal(15),
            Message::Resume(4),
            Message::TreeEnded,
        ] {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
        assert_eq!(Message::decode([99, 0, 0, 0, 0]), None);
    }

    #[test]
    fn last_words_are_heard_though_the_other_side_did_not_listen() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (front, server) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty())
            .expect("socketpair");
        Message::Resume(1).send(&front);
        Message::Exited(3).send(&server);
        drop(server);
        assert_eq!(Message::receive(&front), Ok(Some(Message::Exited(3))));
        assert_eq!(Message::receive(&front), Ok(None));
    }
}
