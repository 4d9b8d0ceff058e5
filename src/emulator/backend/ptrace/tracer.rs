//! The tracer's loop: what each stop of a tracee means.

use std::sync::Arc;

use nix::errno::Errno as OsErrno;
use tokio::sync::mpsc::UnboundedSender;

use super::answer::PtraceAnswer;
use super::registers::{self, Calls, Mode};
use super::tracees::{Stops, Tracees};
use super::{CLONE, Children, Event, waits};
use crate::emulator::abi::{ABIS, Abi};
use crate::emulator::engine::Engine;
use crate::emulator::sys::ptrace::{self, Registers, Stop};
use crate::emulator::sys::seccomp::Notification;
use crate::emulator::sys::{OsResult, Spent, spent};
use crate::emulator::syscall::Activation;

/// Stops of a task that stops alone, that are served before a look whether others have stopped.
const UNSWEPT: u32 = 15;

/// The one thread that a program and all it starts obey.
pub struct Tracer {
    engine: Arc<Engine>,
    tracees: Tracees,
    events: UnboundedSender<Event>,
    program: i32,
    calls: Calls,
    /// What this thread had spent when it was done with the last stop.
    before: Spent,
    is_stopped: bool,
    /// The program could not be executed; its end is then left to whoever started it (std::process).
    is_given_up: bool,
    /// The program's end, told when it is known whether anything else is left.
    last_word: Option<Event>,
}

impl Tracer {
    /// For a program that this thread has seized.
    pub fn new(engine: Arc<Engine>, tracees: Tracees, events: UnboundedSender<Event>, program: i32) -> Self {
        Tracer {
            engine,
            tracees,
            events,
            program,
            calls: Calls::here(),
            before: spent(),
            is_stopped: false,
            is_given_up: false,
            last_word: None,
        }
    }

    /// Serves until nothing is left of the tree.
    pub fn run(mut self, children: Children) {
        let options = match children {
            Children::Tracees => libc::__WNOTHREAD,
            Children::All => 0,
        };
        let mut stops = Vec::new();
        let mut unswept = 0u32;
        loop {
            // All that have stopped are served before any is asked for again: waitpid(2) has favourites, and a
            // busy thread would starve the others. While there is only one, looking for others costs more than they
            // lose by waiting for a few of its stops.
            let hang = if self.last_word.is_some() || !stops.is_empty() { libc::WNOHANG } else { 0 };
            match ptrace::wait(-1, options | hang) {
                Ok(Some(stop)) => {
                    stops.push(stop);
                    if unswept == 0 {
                        continue;
                    }
                    unswept -= 1;
                }
                Ok(None) if stops.is_empty() => self.say_last(),
                Ok(None) if stops.len() == 1 => unswept = UNSWEPT,
                Ok(None) | Err(OsErrno::EINTR) => {}
                Err(_) if stops.is_empty() => break,
                Err(_) => {}
            }
            for (tid, stop) in stops.drain(..) {
                self.handle(tid, stop);
            }
            for (tid, stop) in self.tracees.take_left() {
                self.handle(tid, stop);
            }
            if self.is_given_up {
                return;
            }
        }
        self.say(Event::TreeEnded);
        self.say_last();
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
        self.act_on(tid, stop);
        self.before = spent();
    }

    fn act_on(&mut self, tid: i32, stop: Stop) {
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
            Stop::Event(libc::PTRACE_EVENT_SECCOMP) => self.serve_selected(tid),
            Stop::Event(libc::PTRACE_EVENT_EXEC) => {
                self.tracees.executes(tid);
                if tid == self.program {
                    let _ = ptrace::set_executed(tid);
                }
                self.tracees.resume(tid, 0)
            }
            Stop::Event(libc::PTRACE_EVENT_EXIT) => self.let_exit(tid),
            Stop::Event(event) => {
                if event == libc::PTRACE_EVENT_CLONE {
                    self.tracees.clones();
                }
                self.tracees.resume(tid, 0)
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
                self.tracees.resume(tid, 0)
            }
            Stop::Syscall if self.tracees.stops() == Stops::All && self.tracees.enters(tid) => {
                self.serve_if_trapped(tid)
            }
            Stop::Syscall => self.tracees.resume(tid, 0),
            Stop::Signal(signal) => self.deliver(tid, signal),
        };
    }

    /// Hands a signal over. In gVisor, which has no such way to start a call again, waits are left as they are.
    fn deliver(&self, tid: i32, signal: i32) -> OsResult<()> {
        if self.calls == Calls::Any
            && let Some(registers) = waits::again(&ptrace::registers(tid)?, signal)
        {
            ptrace::set_registers(tid, &registers)?;
        }
        self.tracees.resume(tid, signal)
    }

    /// A program that cannot be executed ends the process that was to become it.
    fn let_exit(&mut self, tid: i32) -> OsResult<()> {
        let status = ptrace::event_message(tid)? as i32;
        if libc::WIFEXITED(status) {
            self.is_given_up = true;
            return ptrace::detach(tid);
        }
        self.tracees.resume(tid, 0)
    }

    fn end(&mut self, tid: i32, event: Event) {
        self.tracees.forget(tid);
        if tid == self.program {
            self.last_word = Some(event);
        }
    }

    /// Serves a call that the filter selected.
    fn serve_selected(&self, tid: i32) -> OsResult<()> {
        let registers = ptrace::registers(tid)?;
        let abi = match registers::abi_of(&registers, self.calls) {
            Some(abi) => Some(abi),
            None => usize::try_from(ptrace::event_message(tid)?).ok().and_then(|index| ABIS.get(index)),
        };
        let Some(abi) = abi else {
            // Another filter's event, of which natively nobody would hear; or no such event any more, because
            // another thread executed a program and took over the number.
            self.tracees.executes(tid);
            return self.tracees.resume(tid, 0);
        };
        self.serve(tid, abi, registers)
    }

    /// Serves a call of a tracee without a filter, if a filter would have selected it.
    fn serve_if_trapped(&self, tid: i32) -> OsResult<()> {
        let mut registers = ptrace::registers(tid)?;
        // Without a filter nobody tells the ABI but the mode: 32-bit calls of 64-bit code are taken for others.
        let abi = Mode::of(&registers).abi();
        let (nr, args) = registers::call_of(&registers, abi);
        match self.engine.table.activation(abi, nr, args) {
            Activation::Off if self.tracees.watch.may_concern(abi, nr, args) => {
                self.serve(tid, abi, registers)
            }
            Activation::Off => self.tracees.resume(tid, 0),
            Activation::Refuse(errno) => {
                registers::skip(&mut registers, -i64::from(errno.raw()));
                ptrace::set_registers(tid, &registers)?;
                self.tracees.resume(tid, 0)
            }
            Activation::Trap => self.serve(tid, abi, registers),
        }
    }

    fn serve(&self, tid: i32, abi: &Abi, registers: Registers) -> OsResult<()> {
        let (nr, args) = registers::call_of(&registers, abi);
        let syscall = self.engine.table.find(abi, nr).map(|(_, syscall)| syscall.name);
        if syscall.is_none() && !self.tracees.watch.selects(abi, nr) {
            // Another filter's event.
            return self.tracees.resume(tid, 0);
        }
        if syscall == Some(CLONE) {
            let mut registers = registers;
            registers::set_first(&mut registers, abi, args[0] & !(libc::CLONE_UNTRACED as u64));
            ptrace::set_registers(tid, &registers)?;
            return self.tracees.resume(tid, 0);
        }
        let tid = tid.cast_unsigned();
        let call = Notification { id: 0, tid, arch: abi.audit_arch, nr, args };
        let answer = PtraceAnswer::new(&self.engine, &self.tracees, tid, registers);
        match syscall {
            Some(_) => self.engine.serve(&call, &answer, self.before),
            None => answer.serve_write(abi, nr, args),
        }
        Ok(())
    }
}
