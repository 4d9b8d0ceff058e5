//! Starting the tracee: what runs between fork(2) and execve(2).
//!
//! The closure that std::process runs in the child may be running in a copy of a multi-threaded process: no
//! allocation, no lock, no logging; only raw system calls on memory that was prepared before the fork.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno as OsErrno;

use super::seccomp::{self, Instruction, WAIT_KILLABLE_RECV};
use super::{OsResult, check, process, startup};

/// A step of the child that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Joining the process group of the front process.
    ProcessGroup,
    /// Setting no_new_privs.
    NoNewPrivs,
    /// Installing the filter.
    Filter,
    /// Handing the listener to the supervisor.
    Handover,
    /// Being traced.
    Trace,
    /// Everything was set up; what is left is execve(2).
    Exec,
}

impl Stage {
    const ALL: [Stage; 6] =
        [Stage::ProcessGroup, Stage::NoNewPrivs, Stage::Filter, Stage::Handover, Stage::Trace, Stage::Exec];

    fn byte(self) -> u8 {
        match self {
            Stage::ProcessGroup => 0,
            Stage::NoNewPrivs => 1,
            Stage::Filter => 2,
            Stage::Handover => 3,
            Stage::Exec => 4,
            Stage::Trace => 5,
        }
    }
}

/// Which side of a fork(2) this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The new process.
    Child,
    /// The old one, with the new one's process id.
    Parent(i32),
}

/// fork(2) of a process that has one thread only.
///
/// # Errors
/// EBUSY: there are other threads, whose locks the child would inherit locked. EAGAIN: too many processes.
pub fn fork() -> OsResult<Side> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(OsErrno::EBUSY);
    }
    // SAFETY: there is no other thread, so the child is a complete copy and may do anything.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid)),
    }
}

/// Who hears of trapped calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A listener, which is handed over.
    Listener,
    /// A tracer, which the child waits for.
    Tracer,
    /// A tracer that hears of every call, so that no filter is needed.
    TracerOfAll,
}

/// What the child does before it becomes the program.
#[derive(Clone, Debug)]
pub struct ChildSetup {
    /// The filter; empty for none.
    pub program: Vec<Instruction>,
    /// Who hears of trapped calls.
    pub trap: Trap,
    /// Whether to set no_new_privs first.
    pub no_new_privs: bool,
    /// Process group to join, if not the parent's.
    pub process_group: Option<i32>,
    /// The child's end of the handover socket (SOCK_SEQPACKET, close-on-exec).
    pub socket: i32,
    /// Signal mask for the program.
    pub signal_mask: nix::sys::signal::SigSet,
    /// Restore what this process was given at its start (closed standard descriptors, ignored SIGPIPE,
    /// limit of open files).
    pub restore_start_state: bool,
}

/// Arranges for `setup` to run in the child of `command`.
pub fn prepare(command: &mut Command, setup: ChildSetup) {
    let closure = move || run(&setup).map_err(io::Error::from);
    // SAFETY: the closure makes raw system calls only and touches nothing but `setup`, which was allocated
    // before the fork.
    unsafe { command.pre_exec(closure) };
}

fn run(setup: &ChildSetup) -> OsResult<()> {
    let at = |stage: Stage, result: OsResult<()>| {
        result.inspect_err(|_| {
            // The parent learns the stage from here and the errno from std's own pipe.
            let _ = send_message(setup.socket, stage.byte(), None);
        })
    };
    if setup.restore_start_state {
        restore_start_state();
    }
    if let Some(group) = setup.process_group {
        // SAFETY: no memory is passed.
        at(Stage::ProcessGroup, check(unsafe { libc::setpgid(0, group) }).map(drop))?;
    }
    // SAFETY: the set is live; the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, setup.signal_mask.as_ref(), std::ptr::null_mut()) };
    if setup.program.is_empty() {
        return Ok(());
    }
    if setup.no_new_privs {
        at(Stage::NoNewPrivs, process::set_no_new_privs())?;
    }
    if setup.trap != Trap::Listener {
        at(Stage::Trace, await_tracer(setup.socket))?;
        return match setup.trap {
            Trap::TracerOfAll => Ok(()),
            _ => at(Stage::Filter, seccomp::install(&setup.program)),
        };
    }
    let mut listener = seccomp::install_with_listener(&setup.program, WAIT_KILLABLE_RECV);
    if let Err(OsErrno::EINVAL) = listener {
        // Linux before 5.19 does not know the flag.
        listener = seccomp::install_with_listener(&setup.program, 0);
    }
    let listener = match listener {
        Ok(listener) => listener,
        Err(errno) => return at(Stage::Filter, Err(errno)),
    };
    // The descriptor has close-on-exec set by the kernel, and is closed here when it goes out of scope.
    at(Stage::Handover, send_message(setup.socket, Stage::Exec.byte(), Some(listener.as_raw_fd())))
}

/// Tells the tracer that it may come, and waits for its answer. Async-signal-safe.
fn await_tracer(socket: i32) -> OsResult<()> {
    // SAFETY: takes and gives plain numbers only.
    let [a, b, c, d] = unsafe { libc::getpid() }.to_ne_bytes();
    let message = [Stage::Trace.byte(), a, b, c, d];
    // SAFETY: the message is live and the length is its own.
    check(unsafe { libc::send(socket, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) } as i64)?;
    let mut byte = 0u8;
    // SAFETY: the byte is live and the length is its own.
    match check(unsafe { libc::recv(socket, (&raw mut byte).cast(), 1, 0) } as i64)? {
        1 => Ok(()),
        _ => Err(OsErrno::EPERM),
    }
}

/// Gives this process, about to become another program, what it was started with.
pub fn restore_start_state() {
    startup::restore_signal_actions();
    startup::restore_descriptor_limit();
    for fd in startup::closed_at_start() {
        // SAFETY: the runtime put /dev/null there; no Rust value owns it.
        unsafe { libc::close(fd) };
    }
}

const CONTROL_LEN: usize = 24; // CMSG_SPACE(sizeof(int)) on 64-bit targets; asserted in the tests.

/// Sends one byte, and optionally a descriptor (unix(7), SCM_RIGHTS). Async-signal-safe.
fn send_message(socket: i32, byte: u8, fd: Option<i32>) -> OsResult<()> {
    let mut byte = byte;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = MaybeUninit::<[u64; CONTROL_LEN / 8]>::zeroed();
    // SAFETY: plain old data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN;
        // SAFETY: the control buffer is live, zeroed, aligned and large enough for one header.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        let value = libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<i32>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: `header` points into the control buffer, which has room for the header.
        unsafe { header.write(value) };
        // SAFETY: as above; the data follows the header.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: the control buffer has room for one int behind the header.
        unsafe { data.cast::<i32>().write_unaligned(fd) };
    }
    // SAFETY: all pointers in `message` refer to live locals.
    check(unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) } as i64).map(drop)
}

/// Waits until the child says that it may be traced and gives its process id; `None` when it failed before. What
/// it says then is left to be received.
///
/// # Errors
/// As recv(2).
pub fn await_tracee(socket: BorrowedFd<'_>) -> OsResult<Option<i32>> {
    use nix::sys::socket::{MsgFlags, recv};
    let mut message = [0u8; 5];
    let len = recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_PEEK)?;
    let [stage, pid @ ..] = message;
    if len != message.len() || stage != Stage::Trace.byte() {
        return Ok(None);
    }
    recv(socket.as_raw_fd(), &mut message, MsgFlags::empty())?;
    Ok(Some(i32::from_ne_bytes(pid)))
}

/// Tells the child that it is traced.
///
/// # Errors
/// EPIPE: it is gone.
pub fn release_tracee(socket: BorrowedFd<'_>) -> OsResult<()> {
    let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::send(socket.as_raw_fd(), &[0], flags).map(drop)
}

/// Receives what the child sent: the last stage it reached, and the listener.
///
/// # Errors
/// EAGAIN: the child sent nothing (it died before the set-up was over).
pub fn receive_handover(socket: BorrowedFd<'_>) -> OsResult<(Stage, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut byte = [0u8; 1];
    let mut iov = [std::io::IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!(i32);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    if message.bytes == 0 {
        return Err(OsErrno::EAGAIN);
    }
    let mut listener = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel just created this descriptor for us; nothing else owns it.
                listener = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    let stage = Stage::ALL.into_iter().find(|stage| stage.byte() == byte[0]).ok_or(OsErrno::EPROTO)?;
    Ok((stage, listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_buffer_holds_one_descriptor() {
        // SAFETY: CMSG_SPACE is arithmetic.
        let space = unsafe { libc::CMSG_SPACE(size_of::<i32>() as u32) };
        assert_eq!(space as usize, CONTROL_LEN);
    }

    #[test]
    fn handover_carries_stage_and_descriptor() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("socketpair");
        let file = std::fs::File::open("/dev/null").expect("open");
        send_message(a.as_raw_fd(), Stage::Exec.byte(), Some(file.as_raw_fd())).expect("send");
        send_message(a.as_raw_fd(), Stage::Filter.byte(), None).expect("send");
        use std::os::fd::AsFd;
        let (stage, fd) = receive_handover(b.as_fd()).expect("receive");
        assert_eq!((stage, fd.is_some()), (Stage::Exec, true));
        let (stage, fd) = receive_handover(b.as_fd()).expect("receive");
        assert_eq!((stage, fd.is_some()), (Stage::Filter, false));
        assert_eq!(receive_handover(b.as_fd()).err(), Some(OsErrno::EAGAIN));
    }
}
