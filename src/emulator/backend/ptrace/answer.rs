//! Answering a call of a stopped tracee.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno as OsErrno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::hand_over::hand_over;
use super::inject::{SCRATCH, Session};
use super::registers;
use super::tracees::Tracees;
use crate::emulator::engine::{Answer, Engine};
use crate::emulator::errno::Errno;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::sys::ptrace::{self, Registers};
use crate::emulator::sys::{OsResult, memory, process};
use crate::emulator::tracee::Tracee;

/// Answers one call exactly once: dropped without an answer, it lets the call through.
pub struct PtraceAnswer<'t> {
    pub(super) engine: &'t Engine,
    pub(super) tracees: &'t Tracees,
    pub(super) tid: u32,
    saved: Registers,
    session: RefCell<Option<Session<'t>>>,
    given: Cell<bool>,
}

impl<'t> PtraceAnswer<'t> {
    /// For a tracee in the stop of a trapped call.
    pub fn new(engine: &'t Engine, tracees: &'t Tracees, tid: u32, saved: Registers) -> Self {
        PtraceAnswer { engine, tracees, tid, saved, session: RefCell::new(None), given: Cell::new(false) }
    }

    /// Whether the task is still where it was trapped, and not at the start of a program that a thread executed.
    fn is_untouched(&self) -> bool {
        let place = |registers: &Registers| (registers.rip, registers.rsp, registers.orig_rax);
        ptrace::registers(self.pid()).is_ok_and(|now| place(&now) == place(&self.saved))
    }

    fn pid(&self) -> i32 {
        self.tid.cast_signed()
    }

    /// Lets the call return this.
    pub(super) fn give(&self, result: i64) -> OsResult<()> {
        self.given.set(true);
        if let Some(session) = self.session.borrow_mut().take() {
            return session.finish(result);
        }
        let mut registers = self.saved;
        registers::skip(&mut registers, result);
        ptrace::set_registers(self.pid(), &registers)?;
        self.tracees.resume(self.pid(), 0)
    }

    /// Makes the tracee make calls.
    pub(super) fn with_session<T>(&self, act: impl FnOnce(&mut Session<'t>) -> OsResult<T>) -> OsResult<T> {
        let mut session = self.session.borrow_mut();
        if session.is_none() {
            let task = self.engine.emulator.resolver.views.task(self.tid)?;
            *session = Some(Session::begin(self.tracees, self.pid(), task.status.tgid, self.saved)?);
        }
        match session.as_mut() {
            Some(session) => act(session),
            None => Err(OsErrno::EIO),
        }
    }

    pub(super) fn stat_of(&self, fd: i64) -> OsResult<Stat> {
        let link = file::c_path(format!("{}/fd/{fd}", self.tid).as_bytes())?;
        file::stat(Some(self.engine.emulator.resolver.views.proc()), &link, 0)
    }

    /// The tracee opens the supervisor's descriptor through procfs, where it can see the supervisor there.
    fn open_through_proc(
        &self,
        session: &mut Session<'_>,
        fd: BorrowedFd<'_>,
        flags: i32,
    ) -> OsResult<Option<i64>> {
        let path = format!("/proc/{}/fd/{}\0", std::process::id(), fd.as_raw_fd());
        self.open_same(session, fd, path.as_bytes(), flags)
    }

    /// The tracee opens a path that may lead to the same object as the supervisor's descriptor; `None` when not.
    fn open_same(
        &self,
        session: &mut Session<'_>,
        fd: BorrowedFd<'_>,
        path: &[u8],
        flags: i32,
    ) -> OsResult<Option<i64>> {
        let path = session.write(path)?;
        let args = [libc::AT_FDCWD as u32 as u64, path, flags as u32 as u64, 0, 0, 0];
        match session.call("openat", args) {
            Ok(opened) => {
                let (theirs, ours) = (self.stat_of(opened)?, file::stat_fd(fd)?);
                if (theirs.dev, theirs.ino) == (ours.dev, ours.ino) {
                    return Ok(Some(opened));
                }
                // Somebody else's: the number means another process there, or the path another file.
                session.call("close", [opened.cast_unsigned(), 0, 0, 0, 0, 0])?;
                Ok(None)
            }
            Err(errno @ (OsErrno::EMFILE | OsErrno::ENFILE | OsErrno::ESRCH | OsErrno::EFAULT)) => Err(errno),
            Err(_) => Ok(None),
        }
    }

    /// The tracee makes a memfd with the content of the supervisor's descriptor of a virtual file; that of a carrier which
    /// serves its files itself it receives.
    fn copy_file(
        &self,
        session: &mut Session<'_>,
        fd: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> OsResult<Option<i64>> {
        let carrier = &self.engine.emulator.carrier;
        let stat = file::stat_fd(fd)?;
        let Some(key) = carrier.identify(&stat) else { return Ok(None) };
        if !stat.is(libc::S_IFREG) {
            return Ok(None);
        }
        let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        let (is_read, is_written) = match status & OFlag::O_ACCMODE {
            OFlag::O_RDONLY => (true, false),
            OFlag::O_WRONLY => (false, true),
            _ => (true, true),
        };
        if carrier.shows_path() {
            // What is written has to reach the carrier, and what is opened anew through it has to be known.
            match hand_over(session, fd, close_on_exec) {
                Ok(received) => return Ok(Some(received)),
                Err(errno @ (OsErrno::EMFILE | OsErrno::ENFILE)) => return Err(errno),
                // A copy would swallow it, and the real file must not get it.
                Err(_) if is_written => return Err(OsErrno::EROFS),
                Err(errno) => tracing::debug!(tid = self.tid, %errno, "a virtual file is copied"),
            }
        }
        let name: String = key.trim_start_matches('/').chars().take(200).chain(['\0']).collect();
        let name = session.write(name.as_bytes())?;
        let cloexec = if close_on_exec { libc::MFD_CLOEXEC } else { 0 };
        let flags = u64::from(libc::MFD_ALLOW_SEALING | cloexec);
        let made = session.call("memfd_create", [name, flags, 0, 0, 0, 0])?;
        let number = made.cast_unsigned();
        let mut piece = vec![0u8; SCRATCH];
        let mut at = 0;
        loop {
            let len = if is_read { nix::sys::uio::pread(fd, &mut piece, at)? } else { 0 };
            if len == 0 {
                break;
            }
            let piece = session.write(&piece[..len])?;
            session.call("pwrite64", [number, piece, len as u64, at.cast_unsigned(), 0, 0])?;
            at += len as i64;
        }
        if is_written {
            let path = file::c_path(format!("{}/fd/{made}", self.tid).as_bytes())?;
            let views = &self.engine.emulator.resolver.views;
            let copy = file::open(Some(views.proc()), &path, libc::O_RDONLY)?;
            carrier.stage_copy(&stat, copy)?;
            return Ok(Some(made));
        }
        let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
        session.call("fcntl", [number, libc::F_ADD_SEALS as u64, seals as u64, 0, 0, 0])?;
        carrier.adopt(&self.stat_of(made)?, &key);
        Ok(Some(made))
    }

    fn deliver(&self, session: &mut Session<'_>, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<i64> {
        let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        let kept = OFlag::O_ACCMODE
            | OFlag::O_NONBLOCK
            | OFlag::O_APPEND
            | OFlag::O_DIRECT
            | OFlag::O_DIRECTORY
            | OFlag::O_SYNC
            | OFlag::O_NOATIME;
        let cloexec = if close_on_exec { libc::O_CLOEXEC } else { 0 };
        let flags = (status & kept).bits() | cloexec;
        if let Some(opened) = self.open_through_proc(session, fd, flags)? {
            return Ok(opened);
        }
        if let Some(made) = self.copy_file(session, fd, close_on_exec)? {
            return Ok(made);
        }
        let text = file::readlink(None, &file::self_fd_path(fd))?;
        if text.starts_with(b"anon_inode:[eventfd") {
            let flags = (status & OFlag::O_NONBLOCK).bits() | cloexec;
            return session.call("eventfd2", [0, flags as u64, 0, 0, 0, 0]);
        }
        let mut path = text;
        path.push(0);
        if let Some(opened) = self.open_same(session, fd, &path, flags)? {
            return Ok(opened);
        }
        let received = hand_over(session, fd, close_on_exec)?;
        let (theirs, ours) = (self.stat_of(received)?, file::stat_fd(fd)?);
        if (theirs.dev, theirs.ino) == (ours.dev, ours.ino) {
            return Ok(received);
        }
        session.call("close", [received.cast_unsigned(), 0, 0, 0, 0, 0])?;
        Err(OsErrno::EACCES)
    }
}

impl Tracee for PtraceAnswer<'_> {
    fn seek(&self, fd: i32, offset: i64, whence: i32) -> OsResult<i64> {
        let fd = u64::from(fd.cast_unsigned());
        self.with_session(|session| {
            session.call("lseek", [fd, offset.cast_unsigned(), whence as u64, 0, 0, 0])
        })
    }

    fn watch(&self, inotify: i32, target: BorrowedFd<'_>, mask: u32) -> OsResult<i32> {
        // Where descriptors can be taken over there is no need to see the supervisor in procfs.
        let path = file::self_fd_path(target);
        let pidfd = process::pidfd_open_thread(self.tid);
        if let Ok(own) = pidfd.and_then(|pidfd| process::pidfd_getfd(pidfd.as_fd(), inotify)) {
            return file::inotify_add_watch(own.as_fd(), &path, mask);
        }
        let path = format!("/proc/{}/fd/{}\0", std::process::id(), target.as_raw_fd());
        let inotify = u64::from(inotify.cast_unsigned());
        self.with_session(|session| {
            let path = session.write(path.as_bytes())?;
            session.call("inotify_add_watch", [inotify, path, mask.into(), 0, 0, 0])
        })
        .map(|watch| watch as i32)
    }

    fn watch_looks(&self) {
        self.watch_all_looks();
    }
}

impl Answer for PtraceAnswer<'_> {
    fn backend(&self) -> &'static str {
        "ptrace"
    }

    fn is_valid(&self) -> bool {
        ptrace::registers(self.pid()).is_ok()
    }

    fn store(&self, addr: u64, bytes: &[u8]) -> OsResult<()> {
        // Nobody gets its number before its end was waited for here, but for a thread that executes a program.
        let may_be_taken_over = self.tracees.has_threads() && self.session.borrow().is_none();
        if may_be_taken_over && !self.is_untouched() {
            return Err(OsErrno::ENOENT);
        }
        memory::write(self.tid, addr, bytes)
    }

    fn resume(&self) -> OsResult<()> {
        self.given.set(true);
        match self.session.borrow_mut().take() {
            Some(session) => session.finish_with_call(),
            None => self.tracees.resume(self.pid(), 0),
        }
    }

    fn value(&self, value: i64) -> OsResult<()> {
        self.give(value)
    }

    fn errno(&self, errno: Errno) -> OsResult<()> {
        self.give(-i64::from(errno.raw()))
    }

    fn fd(&self, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<()> {
        let delivered = self.with_session(|session| self.deliver(session, fd, close_on_exec))?;
        if self.engine.emulator.carrier.is_staged(&file::stat_fd(fd)?) {
            self.watch_writes(delivered);
        }
        self.give(delivered)
    }
}

impl Drop for PtraceAnswer<'_> {
    fn drop(&mut self) {
        if !self.given.get() && self.resume().is_ok() {
            tracing::warn!("a call was left without an answer and let through");
        }
    }
}
