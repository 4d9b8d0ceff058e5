//! From a received call to its answer: dispatch, the panic guard, the verdict log and the counters. The one
//! place that turns a handler's [`Reply`] into writes to the tracee and an answer.

use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::errno::Errno as OsErrno;

use super::abi::Abi;
use super::context::Emulator;
use super::errno::Errno;
use super::failure::Failure;
use super::record::Recorder;
use super::reply::Reply;
use super::stats::{Stats, Verdict};
#[cfg(doc)]
use super::sys::memory;
use super::sys::seccomp::Notification;
use super::sys::{OsResult, Spent, file, spent, tape};
use super::syscall::{Call, Syscall, SyscallTable};
use super::tracee::Tracee;
use crate::policy::OnFault;

/// How a backend answers one call. Exactly one of the answers is given, once.
pub trait Answer: Tracee {
    /// Name of the backend, for logs.
    fn backend(&self) -> &'static str;
    /// Whether the caller still waits.
    fn is_valid(&self) -> bool;
    /// Writes to the caller's memory, and not to that of a task that took over the number of a dead one.
    ///
    /// # Errors
    /// ENOENT when the caller is gone; otherwise as [`memory::write`].
    fn store(&self, addr: u64, bytes: &[u8]) -> OsResult<()>;
    /// The kernel runs the call.
    ///
    /// # Errors
    /// ENOENT when the caller is gone.
    fn resume(&self) -> OsResult<()>;
    /// The call returns a value.
    ///
    /// # Errors
    /// As [`Answer::resume`].
    fn value(&self, value: i64) -> OsResult<()>;
    /// The call fails.
    ///
    /// # Errors
    /// As [`Answer::resume`].
    fn errno(&self, errno: Errno) -> OsResult<()>;
    /// The call returns a new descriptor.
    ///
    /// # Errors
    /// EMFILE when the caller's table is full; EROFS when it cannot have one that is written through; otherwise as
    /// [`Answer::resume`].
    fn fd(&self, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<()>;
}

/// Dispatches calls to handlers.
pub struct Engine {
    /// What handlers consult.
    pub emulator: Emulator,
    /// The active rows.
    pub table: SyscallTable,
    /// Counters.
    pub stats: Stats,
    /// Where calls are recorded, if they are.
    pub recorder: OnceLock<Recorder>,
    start: Instant,
    /// The second of the run in which a fault was logged last.
    warned: AtomicU64,
}

impl Engine {
    /// An engine for these rows.
    pub fn new(emulator: Emulator, table: SyscallTable) -> Self {
        let stats = Stats::new(table.rows().count());
        let (recorder, start) = (OnceLock::new(), Instant::now());
        Engine { emulator, table, stats, recorder, start, warned: AtomicU64::new(0) }
    }

    /// Serves one call. `before` is what the thread had spent before it was received.
    pub fn serve(&self, call: &Notification, answer: &dyn Answer, before: Spent) {
        let Some((abi, (row, syscall))) =
            Abi::of(call.arch, call.nr).and_then(|abi| Some((abi, self.table.find(abi, call.nr)?)))
        else {
            // The filter is made from the table, so this is a number that libseccomp translated otherwise.
            tracing::warn!(arch = call.arch, nr = call.nr, "trapped a call that no row names");
            let _ = answer.resume();
            return;
        };
        let run = |answer: &dyn Answer| self.run((abi, row, syscall), call, answer, before);
        match self.recorder.get() {
            None => run(answer),
            Some(recorder) => recorder.around(&self.emulator, (syscall.name, abi, call), answer, run),
        }
    }

    fn run(
        &self,
        (abi, row, syscall): (&'static Abi, usize, &Syscall),
        call: &Notification,
        answer: &dyn Answer,
        before: Spent,
    ) {
        let start = tracing::enabled!(tracing::Level::DEBUG).then(Instant::now);
        let view = Call::new(&self.emulator, answer, syscall.name, abi, call);
        let outcome = catch_unwind(AssertUnwindSafe(|| (syscall.handler)(&view)))
            .unwrap_or(Err(Failure::Fault("run a handler: it panicked", OsErrno::UnknownErrno)));
        let (verdict, errno) = self.answer(&view, outcome, answer);
        self.stats.add(row, verdict, spent() - before);
        self.log(&view, verdict, errno, start, answer.backend());
    }

    fn answer(
        &self,
        call: &Call<'_>,
        outcome: Result<Reply, Failure>,
        answer: &dyn Answer,
    ) -> (Verdict, Option<Errno>) {
        let sent = match outcome {
            Ok(Reply::Continue) => answer.resume().map(|()| (Verdict::Continue, None)),
            Ok(Reply::Value { value, out: None }) => answer.value(value).map(|()| (Verdict::Value, None)),
            Ok(Reply::Value { value, out: Some(out) }) => match answer.store(out.addr, &out.bytes) {
                Ok(()) => answer.value(value).map(|()| (Verdict::Value, None)),
                Err(OsErrno::EFAULT) => errno(answer, Errno::EFAULT),
                Err(OsErrno::ENOENT) => Err(OsErrno::ENOENT),
                Err(error) => self.fault(call, "write to the tracee", error, answer),
            },
            Ok(Reply::Fd { file, close_on_exec }) => {
                let sent = answer.fd(file.as_fd(), close_on_exec);
                file::close(file);
                match sent {
                    Ok(()) => Ok((Verdict::Fd, None)),
                    Err(OsErrno::EMFILE) => errno(answer, Errno::EMFILE),
                    Err(OsErrno::ENFILE) => errno(answer, Errno::ENFILE),
                    Err(OsErrno::EROFS) => errno(answer, Errno::EROFS),
                    Err(OsErrno::ENOENT) => Err(OsErrno::ENOENT),
                    Err(error) => self.fault(call, "install a descriptor", error, answer),
                }
            }
            Err(Failure::Guest(guest)) => errno(answer, guest),
            Err(Failure::Gone) => answer.resume().map(|()| (Verdict::Gone, None)),
            Err(Failure::Fault(what, error)) => self.fault(call, what, error, answer),
        };
        match sent {
            Ok(result) => result,
            // The caller was killed or took a signal meanwhile: there is nobody to answer.
            Err(_) => (Verdict::Gone, None),
        }
    }

    fn fault(
        &self,
        call: &Call<'_>,
        what: &'static str,
        error: OsErrno,
        answer: &dyn Answer,
    ) -> OsResult<(Verdict, Option<Errno>)> {
        tape::act(|| format!("fault: cannot {what}: {error}"));
        // A task that died under the hands of a handler makes all kinds of calls fail.
        if !answer.is_valid() {
            return Err(OsErrno::ENOENT);
        }
        // Once a second at most: a program that may not be looked at makes every call fail.
        let second = self.start.elapsed().as_secs() + 1;
        if self.warned.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(tid = call.tid, syscall = call.name, "cannot {what}: {error}");
        }
        match self.emulator.options.on_fault {
            OnFault::Continue => answer.resume()?,
            OnFault::Eio => answer.errno(Errno::EIO)?,
        }
        Ok((Verdict::Fault, None))
    }

    fn log(
        &self,
        call: &Call<'_>,
        verdict: Verdict,
        errno: Option<Errno>,
        start: Option<Instant>,
        backend: &str,
    ) {
        if !self.emulator.records_paths() {
            return;
        }
        let path = call.seen_path();
        if verdict == Verdict::Continue
            && let Some(path) = &path
            && is_managed_text(path)
        {
            self.stats.add_missed(path);
        }
        let Some(start) = start else { return };
        let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let path = path.map(|path| String::from_utf8_lossy(&path).into_owned());
        let (path, verdict_name) = (path.as_deref().unwrap_or(""), verdict.name());
        let (tid, syscall) = (call.tid, call.name);
        if verdict == Verdict::Continue {
            tracing::trace!(backend, tid, syscall, path, verdict = verdict_name, elapsed_us);
        } else {
            let errno = errno.map(|errno| errno.to_string());
            tracing::debug!(backend, tid, syscall, path, verdict = verdict_name, errno, elapsed_us);
        }
    }
}

fn errno(answer: &dyn Answer, errno: Errno) -> OsResult<(Verdict, Option<Errno>)> {
    answer.errno(errno).map(|()| (Verdict::Errno, Some(errno)))
}

/// Whether a path text is below the prefixes that rows usually manage, process directories aside.
fn is_managed_text(path: &[u8]) -> bool {
    let process = |rest: &[u8]| rest.starts_with(b"self") || rest.first().is_some_and(u8::is_ascii_digit);
    match path.strip_prefix(b"/proc/") {
        Some(rest) => !process(rest) && !rest.starts_with(b"thread-self"),
        None => path.starts_with(b"/sys/"),
    }
}
