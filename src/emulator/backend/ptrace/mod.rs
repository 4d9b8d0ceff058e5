//! The ptrace backend: SECCOMP_RET_TRACE stops only the calls that the policy needs, and their result is set in
//! the same stop. For kernels without user notification, such as gVisor's.
//!
//! One thread does everything, because a tracee obeys only the thread that seized it. What waitpid(2) reports in
//! it is all there is to know about the tree, so it also tells what became of the program.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno as OsErrno;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::emulator::engine::Engine;
use crate::emulator::reply::Reply;
use crate::emulator::sys::ptrace::{self, Stop};
use crate::emulator::sys::{OsResult, spawn};
use crate::emulator::syscall::{Activation, ArgTest, Call, Syscall};

mod answer;
mod hand_over;
mod inject;
pub mod registers;
mod tracees;
mod tracer;
mod waits;
mod writes;

use tracees::Tracees;
pub use tracees::{Pass, Stops};
use tracer::Tracer;

/// The call whose children a tracer may not hear of.
const CLONE: &str = "clone";

/// Clone(2) with CLONE_UNTRACED. (The flags of clone3(2) are in memory, where no filter sees them.)
const UNTRACED: &[ArgTest] =
    &[ArgTest { arg: 0, mask: libc::CLONE_UNTRACED as u32, value: libc::CLONE_UNTRACED as u32 }];

/// Requests of ptrace(2) that make a tracer of the caller or its parent.
const TRACING: &[ArgTest] = &[
    ArgTest { arg: 0, mask: u32::MAX, value: libc::PTRACE_TRACEME },
    ArgTest { arg: 0, mask: u32::MAX, value: libc::PTRACE_ATTACH },
    ArgTest { arg: 0, mask: u32::MAX, value: libc::PTRACE_SEIZE },
];

/// What this backend traps for itself: calls by which a child would escape, and those that fail because of it.
pub fn rows() -> Vec<Syscall> {
    let clone = Syscall::new(CLONE, |_| Activation::Trap, |_| Ok(Reply::Continue));
    let is_told = AtomicBool::new(false);
    let ptrace = Syscall::new(
        "ptrace",
        |_| Activation::Trap,
        move |call| {
            if !is_told.swap(true, Ordering::Relaxed) {
                tell_about_tracers(call);
            }
            Ok(Reply::Continue)
        },
    );
    vec![Syscall { only_if: UNTRACED.into(), ..clone }, Syscall { only_if: TRACING.into(), ..ptrace }]
}

/// The kernel refuses a second tracer; why there is a first one only sysemu can say.
fn tell_about_tracers(call: &Call<'_>) {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", call.tid)).unwrap_or_default();
    tracing::debug!(
        tid = call.tid,
        "{} asks for ptrace(2), which gives EPERM for programs under the ptrace backend; with --backend notify it works",
        name.trim_end()
    );
}

/// What became of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It ended with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
    /// This signal stopped it.
    Stopped(i32),
    /// It goes on after a stop.
    Continued,
    /// Nothing of the tree is left. Comes before the last one of the above.
    TreeEnded,
}

/// Whose ends the tracer hears of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Children {
    /// Its tracees'. Other children of the process are somebody else's.
    #[default]
    Tracees,
    /// Those of all children of the process.
    All,
}

/// Traces one program and all it starts.
pub struct PtraceServer {
    ended: AtomicBool,
    /// The process that was seized.
    program: OnceLock<i32>,
    /// Why the program could not be seized.
    refused: OnceLock<OsErrno>,
}

impl PtraceServer {
    /// Starts the tracer, which waits for the child at the other end of the socket (see
    /// [`spawn::Trap::Tracer`]).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        engine: Arc<Engine>,
        socket: OwnedFd,
        stops: Stops,
        pass: Pass,
        children: Children,
    ) -> std::io::Result<(Arc<Self>, UnboundedReceiver<Event>)> {
        let (events, receiver) = unbounded_channel();
        let server = Arc::new(PtraceServer {
            ended: AtomicBool::new(false),
            program: OnceLock::new(),
            refused: OnceLock::new(),
        });
        let own = server.clone();
        std::thread::Builder::new().name("tracer".into()).spawn(move || {
            if let Some(program) = own.seize(&socket, stops) {
                Tracer::new(engine, Tracees::new(stops, pass), events, program).run(children);
            }
            own.ended.store(true, Ordering::SeqCst);
        })?;
        Ok((server, receiver))
    }

    /// Whether the program was seized. One that was executed was; one that was killed before may not have been.
    pub fn has_program(&self) -> bool {
        self.program.get().is_some()
    }

    /// Why the program could not be seized, if so.
    pub fn refusal(&self) -> Option<OsErrno> {
        self.refused.get().copied()
    }

    /// Whether no tracee is left.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Seizes the child at the other end, and says which before it goes on; `None` when there is none.
    fn seize(&self, socket: &OwnedFd, stops: Stops) -> Option<i32> {
        let pid = spawn::await_tracee(socket.as_fd()).inspect_err(|errno| self.refuse(*errno)).ok()??;
        let seized = take(pid, stops).and_then(|()| {
            let _ = self.program.set(pid);
            spawn::release_tracee(socket.as_fd())
        });
        if let Err(errno) = seized {
            // Before the child hears of it: whoever started it then asks for the reason at once.
            self.refuse(errno);
            // The child waits at the other end, which others hold open too.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
            return None;
        }
        Some(pid)
    }

    fn refuse(&self, errno: OsErrno) {
        let _ = self.refused.set(errno);
    }
}

fn take(pid: i32, stops: Stops) -> OsResult<()> {
    ptrace::seize(pid)?;
    if stops == Stops::Selected {
        return Ok(());
    }
    // Only a stopped tracee can be told to stop at every call.
    ptrace::interrupt(pid)?;
    while !matches!(ptrace::wait(pid, 0), Ok(Some((_, Stop::Trap)))) {
        ptrace::resume(pid, 0)?;
    }
    ptrace::resume_to_syscall(pid, 0)
}

#[cfg(test)]
mod tests {
    use crate::emulator::abi::ABIS;
    use crate::emulator::syscall;

    #[test]
    fn injected_calls_have_numbers() {
        for (abi, map) in [(&ABIS[0], "mmap"), (&ABIS[1], "mmap2")] {
            for name in [
                map,
                "mprotect",
                "openat",
                "close",
                "memfd_create",
                "pwrite64",
                "fcntl",
                "lseek",
                "eventfd2",
                "inotify_add_watch",
            ] {
                assert!(syscall::number(name, abi).is_some(), "{name} in {}", abi.name);
            }
        }
    }
}
