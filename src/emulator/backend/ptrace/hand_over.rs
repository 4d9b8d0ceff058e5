//! Handing a descriptor of the supervisor's to a tracee that has no path to it, as a message of a unix(7) socket.
//!
//! Needed for directories that exist only virtually, and for files of another root directory, in a program that does not
//! see the supervisor in its procfs. The tracee makes the sockets. Its end of the way is taken over with pidfd_getfd(2);
//! where that is missing (gVisor before 2026) the message is sent to an abstract name in the tracee's network namespace.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno as OsErrno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};

use super::inject::Session;
use super::registers::Mode;
use crate::emulator::sys::{OsResult, file, memory, process};

/// Makes the tracee receive a descriptor; gives its number, which is the lowest free one.
///
/// # Errors
/// EMFILE and the like: the tracee's. Otherwise why it cannot be reached.
pub fn hand_over(session: &mut Session<'_>, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<i64> {
    let mut ends = Vec::new();
    let received = receive(session, &mut ends, fd, close_on_exec);
    for end in ends {
        session.call("close", [end, 0, 0, 0, 0, 0])?;
    }
    let received = received?.cast_unsigned();
    // The sockets had lower numbers, which are free now.
    let command = if close_on_exec { libc::F_DUPFD_CLOEXEC } else { libc::F_DUPFD } as u64;
    let lowest = session.call("fcntl", [received, command, 0, 0, 0, 0])?;
    session.call("close", [received, 0, 0, 0, 0, 0])?;
    Ok(lowest)
}

fn receive(
    session: &mut Session<'_>,
    ends: &mut Vec<u64>,
    fd: BorrowedFd<'_>,
    close_on_exec: bool,
) -> OsResult<i64> {
    match pair(session, ends) {
        Ok(ours) => send(ours.as_fd(), None, fd)?,
        Err(OsErrno::ENOSYS | OsErrno::EPERM | OsErrno::EINVAL) => {
            let address = named(session, ends)?;
            match send_to(&address, fd) {
                // Names belong to a network namespace in gVisor of 2024.
                Err(OsErrno::ECONNREFUSED) => send_from_namespace(session.tid(), &address, fd)?,
                sent => sent?,
            }
        }
        Err(errno) => return Err(errno),
    }
    let socket = *ends.last().ok_or(OsErrno::EBADF)?;
    let header = Header::new(session.mode());
    let at = session.write(&header.bytes(0))?;
    session.write(&header.bytes(at))?;
    let flags = libc::MSG_DONTWAIT | if close_on_exec { libc::MSG_CMSG_CLOEXEC } else { 0 };
    session.call("recvmsg", [socket, at, flags as u64, 0, 0, 0])?;
    let mut control = vec![0u8; header.control_len];
    let got = memory::read(session.tid(), at + header.control_at as u64, &mut control)?;
    let number = control.get(header.control_len - 4..got).and_then(|bytes| bytes.try_into().ok());
    // A full table does not make the call fail: the message just comes without its descriptor.
    let level = control.get(header.word..header.word + 4);
    match number.map(i32::from_ne_bytes) {
        Some(number) if level == Some(&libc::SOL_SOCKET.to_ne_bytes()) => Ok(number.into()),
        _ => Err(OsErrno::EMFILE),
    }
}

/// Connected sockets of the tracee; gives the supervisor's own descriptor of the first.
fn pair(session: &mut Session<'_>, ends: &mut Vec<u64>) -> OsResult<OwnedFd> {
    let pidfd = process::pidfd_open_thread(session.tid())?;
    let at = session.write(&[0; 8])?;
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64;
    session.call("socketpair", [libc::AF_UNIX as u64, kind, 0, at, 0, 0])?;
    let mut numbers = [0u8; 8];
    memory::read(session.tid(), at, &mut numbers)?;
    let number = |at: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|byte| numbers[at + byte]));
    let theirs = [number(0), number(4)];
    ends.extend(theirs.map(|number| u64::from(number.cast_unsigned())));
    process::pidfd_getfd(pidfd.as_fd(), theirs[0])
}

/// A socket of the tracee with a name.
fn named(session: &mut Session<'_>, ends: &mut Vec<u64>) -> OsResult<UnixAddr> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("sysemu-{}-{}-{count}", std::process::id(), session.tid());
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64;
    let socket = session.call("socket", [libc::AF_UNIX as u64, kind, 0, 0, 0, 0])?.cast_unsigned();
    ends.push(socket);
    // `struct sockaddr_un`; a name that begins with NUL is abstract and as long as the structure.
    let family = (libc::AF_UNIX as u16).to_ne_bytes();
    let address: Vec<u8> = family.into_iter().chain([0]).chain(name.bytes()).collect();
    let at = session.write(&address)?;
    session.call("bind", [socket, at, address.len() as u64, 0, 0, 0])?;
    UnixAddr::new_abstract(name.as_bytes())
}

fn send_to(address: &UnixAddr, fd: BorrowedFd<'_>) -> OsResult<()> {
    let ours = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    send(ours.as_fd(), Some(address), fd)
}

/// As [`send_to`], by a thread that enters the network namespace of a task and ends in it.
fn send_from_namespace(tid: u32, address: &UnixAddr, fd: BorrowedFd<'_>) -> OsResult<()> {
    let path = file::c_path(format!("/proc/{tid}/ns/net").as_bytes())?;
    let namespace = file::open(None, &path, libc::O_RDONLY)?;
    let enter_and_send = || setns(&namespace, CloneFlags::CLONE_NEWNET).and_then(|()| send_to(address, fd));
    std::thread::scope(|scope| scope.spawn(enter_and_send).join()).unwrap_or(Err(OsErrno::EIO))
}

fn send(socket: BorrowedFd<'_>, to: Option<&UnixAddr>, fd: BorrowedFd<'_>) -> OsResult<()> {
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(b"x")], &control, MsgFlags::MSG_DONTWAIT, to).map(drop)
}

/// A `struct msghdr` with its one buffer and its control message behind it, for one descriptor.
struct Header {
    /// Bytes of a pointer and of a `size_t`.
    word: usize,
    control_at: usize,
    control_len: usize,
}

impl Header {
    fn new(mode: Mode) -> Self {
        let word = if mode == Mode::Long { 8 } else { 4 };
        // Seven words, then an iovec of two, then a word for the byte.
        Header { word, control_at: 10 * word, control_len: word + 12 }
    }

    /// What is stored at an address: pointers, the length of the buffer, and the length of the control message.
    fn bytes(&self, at: u64) -> Vec<u8> {
        let (word, base) = (self.word as u64, at);
        let iov = base + 7 * word;
        let words = [0, 0, iov, 1, base + self.control_at as u64, self.control_len as u64, 0];
        let all = words.into_iter().chain([base + 9 * word, 1, 0]);
        let mut bytes: Vec<u8> =
            all.flat_map(|value: u64| value.to_ne_bytes()[..self.word].to_vec()).collect();
        bytes.resize(self.control_at + self.control_len, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_layout_of_the_c_library() {
        let header = Header::new(Mode::Long);
        let bytes = header.bytes(0x1000);
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(size_of::<libc::msghdr>(), 7 * 8);
        assert_eq!(word(std::mem::offset_of!(libc::msghdr, msg_iov)), 0x1000 + 56);
        assert_eq!(word(std::mem::offset_of!(libc::msghdr, msg_iovlen)), 1);
        assert_eq!(word(std::mem::offset_of!(libc::msghdr, msg_control)), 0x1000 + 80);
        assert_eq!(word(std::mem::offset_of!(libc::msghdr, msg_controllen)), 20);
        assert_eq!(word(56 + std::mem::offset_of!(libc::iovec, iov_base)), 0x1000 + 72);
        assert_eq!(word(56 + std::mem::offset_of!(libc::iovec, iov_len)), 1);
        assert_eq!(std::mem::offset_of!(libc::cmsghdr, cmsg_level), header.word);
        assert_eq!(size_of::<libc::cmsghdr>(), header.control_len - 4);
    }
}
