//! The ptrace backend: SECCOMP_RET_TRACE stops only the calls that the policy needs, and their result is set in
//! the same stop. For kernels without user notification, such as gVisor's.
//!
//! One thread does everything, because a tracee obeys only the thread that seized it. What waitpid(2) reports in
//! it is all there is to know about the tree, so it also tells what became of the program.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno as OsErrno;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::emulator::abi::ABIS;
use crate::emulator::engine::Engine;
use crate::emulator::probe;
use crate::emulator::reply::Reply;
use crate::emulator::sys::ptrace::{self, Stop};
use crate::emulator::sys::seccomp::Notification;
use crate::emulator::sys::{OsResult, entries, spawn};
use crate::emulator::syscall::{Activation, ArgTest, Syscall};

mod answer;
mod inject;
mod registers;

use answer::PtraceAnswer;
use inject::Gadgets;

/// The call whose children a tracer may not hear of.
const CLONE: &str = "clone";

/// Clone(2) with CLONE_UNTRACED. (The flags of clone3(2) are in memory, where no filter sees them.)
const UNTRACED: &[ArgTest] =
    &[ArgTest { arg: 0, mask: libc::CLONE_UNTRACED as u32, value: libc::CLONE_UNTRACED as u32 }];

/// What this backend traps for itself: calls by which a child would escape.
pub fn rows() -> Vec<Syscall> {
    let clone = Syscall::new(CLONE, |_| Activation::Trap, |_| Ok(Reply::Continue));
    vec![Syscall { only_if: UNTRACED, ..clone }]
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
    /// Why the program could not be seized.
    refused: std::sync::OnceLock<OsErrno>,
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
        children: Children,
    ) -> std::io::Result<(Arc<Self>, UnboundedReceiver<Event>)> {
        let (events, receiver) = unbounded_channel();
        let server = Arc::new(PtraceServer { ended: AtomicBool::new(false), refused: Default::default() });
        let own = server.clone();
        std::thread::Builder::new().name("tracer".into()).spawn(move || {
            match seize(&socket) {
                Ok(Some(program)) => {
                    let gadgets = Gadgets::default();
                    let tracer =
                        Tracer { engine, gadgets, events, program, is_stopped: false, last_word: None };
                    tracer.run(children);
                }
                Ok(None) => {}
                Err(errno) => {
                    let _ = own.refused.set(errno);
                }
            }
            own.ended.store(true, Ordering::SeqCst);
        })?;
        Ok((server, receiver))
    }

    /// Why the program could not be seized, if so.
    pub fn refusal(&self) -> Option<OsErrno> {
        self.refused.get().copied()
    }

    /// Whether no tracee is left.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Seizes the child at the other end; `None` when there is none any more.
fn seize(socket: &OwnedFd) -> OsResult<Option<i32>> {
    let Some(pid) = spawn::await_tracee(socket.as_fd())? else { return Ok(None) };
    let seized = ptrace::seize(pid).and_then(|()| spawn::release_tracee(socket.as_fd()));
    if let Err(errno) = seized {
        // The child waits at the other end, which others hold open too.
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        return Err(errno);
    }
    Ok(Some(pid))
}

struct Tracer {
    engine: Arc<Engine>,
    gadgets: Gadgets,
    events: UnboundedSender<Event>,
    program: i32,
    is_stopped: bool,
    /// The program's end, told when it is known whether anything else is left.
    last_word: Option<Event>,
}

impl Tracer {
    fn run(mut self, children: Children) {
        let options = match children {
            Children::Tracees => libc::__WNOTHREAD,
            Children::All => 0,
        };
        // In gVisor waitid(2) does not tell the stops of tracees: there a child that cannot execute may be reaped here.
        if probe::has_notify() && !self.await_program() {
            return;
        }
        let mut stops = Vec::new();
        loop {
            // All that have stopped are served before any is asked for again: waitpid(2) has favourites, and a
            // busy thread would starve the others.
            let hang = if self.last_word.is_some() || !stops.is_empty() { libc::WNOHANG } else { 0 };
            match ptrace::wait(-1, options | hang) {
                Ok(Some(stop)) => {
                    stops.push(stop);
                    continue;
                }
                Ok(None) if stops.is_empty() => self.say_last(),
                Ok(None) | Err(OsErrno::EINTR) => {}
                Err(_) if stops.is_empty() => break,
                Err(_) => {}
            }
            for (tid, stop) in stops.drain(..) {
                self.handle(tid, stop);
            }
            for (tid, stop) in self.gadgets.take_ended() {
                self.handle(tid, stop);
            }
        }
        self.say(Event::TreeEnded);
        self.say_last();
    }

    /// Serves the child until it executes the program; `false` when it ended before. Its end is then left to whoever
    /// started it: std::process reaps a child that could not execute.
    fn await_program(&mut self) -> bool {
        loop {
            match ptrace::is_end_next(self.program) {
                Ok(false) => {}
                Err(OsErrno::EINTR) => continue,
                Ok(true) | Err(OsErrno::ECHILD) => return false,
                // No waitid(2) of this kind (gVisor): then a child that cannot execute may be reaped here.
                Err(_) => return true,
            }
            if let Ok(Some((tid, stop))) = ptrace::wait(self.program, 0) {
                self.handle(tid, stop);
                if stop == Stop::Event(libc::PTRACE_EVENT_EXEC) {
                    return true;
                }
            }
        }
    }

    fn say(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    fn say_last(&mut self) {
        if let Some(word) = self.last_word.take() {
            self.say(word);
        }
    }

    fn handle(&mut self, tid: i32, stop: Stop) {
        // A tracee that was killed meanwhile obeys no request; its end is reported next.
        let _ = match stop {
            Stop::Exited(status) => {
                self.end(tid, Event::Exited(status));
                Ok(())
            }
            Stop::Killed(signal) => {
                self.end(tid, Event::Killed(signal));
                Ok(())
            }
            Stop::Event(libc::PTRACE_EVENT_SECCOMP) => self.serve(tid),
            Stop::Event(event) => {
                if event == libc::PTRACE_EVENT_EXEC {
                    self.gadgets.forget(tid);
                }
                ptrace::resume(tid, 0)
            }
            Stop::Group(signal) => {
                if tid == self.program && !self.is_stopped {
                    self.is_stopped = true;
                    self.say(Event::Stopped(signal));
                }
                ptrace::listen(tid)
            }
            Stop::Trap => {
                if tid == self.program && self.is_stopped {
                    self.is_stopped = false;
                    self.say(Event::Continued);
                }
                ptrace::resume(tid, 0)
            }
            Stop::Syscall => ptrace::resume(tid, 0),
            Stop::Signal(signal) => ptrace::resume(tid, signal),
        };
    }

    fn end(&mut self, tid: i32, event: Event) {
        self.gadgets.forget(tid);
        if tid == self.program {
            self.last_word = Some(event);
        }
    }

    fn serve(&self, tid: i32) -> OsResult<()> {
        let entered = entries();
        let registers = ptrace::registers(tid)?;
        let index = usize::try_from(ptrace::event_message(tid)?).unwrap_or(usize::MAX);
        let Some(abi) = ABIS.get(index) else {
            // Another filter's event, of which natively nobody would hear; or no such event any more, because
            // another thread executed a program and took over the number.
            self.gadgets.forget(tid);
            return ptrace::resume(tid, 0);
        };
        let (nr, args) = registers::call_of(&registers, abi);
        if self.engine.table.find(abi, nr).is_some_and(|(_, syscall)| syscall.name == CLONE) {
            let mut registers = registers;
            registers::set_first(&mut registers, abi, args[0] & !(libc::CLONE_UNTRACED as u64));
            ptrace::set_registers(tid, &registers)?;
            return ptrace::resume(tid, 0);
        }
        let tid = tid.cast_unsigned();
        let call = Notification { id: 0, tid, arch: abi.audit_arch, nr, args };
        let answer = PtraceAnswer::new(&self.engine, &self.gadgets, tid, registers);
        self.engine.serve(&call, &answer, entered);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
