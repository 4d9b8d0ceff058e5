//! What is remembered of tracees between their stops.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

use super::writes::Watch;
use crate::emulator::probe;
use crate::emulator::sys::OsResult;
use crate::emulator::sys::ptrace::{self, Stop};

/// Which system calls stop a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stops {
    /// Those that the tracee's filter selects.
    Selected,
    /// Every one, at its entry and at its return: where no filter can be installed.
    All,
}

/// The sixth argument by which the filter knows calls that tracees make for their tracer (see
/// [`filter::let_through`](crate::emulator::filter::let_through)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(pub u64);

impl Pass {
    /// Another one each time. Longer than any argument of a 32-bit call.
    pub fn random() -> Self {
        Pass(1 << 63 | std::hash::RandomState::new().build_hasher().finish())
    }
}

/// All tracees of one tracer.
pub struct Tracees {
    stops: Stops,
    /// Whether a signal that comes in a stop is not noticed after it, as in gVisor, which has no notification either.
    forgets_signals: bool,
    pass: Pass,
    /// Descriptors whose writes are served.
    pub watch: Watch,
    /// Some process has had more threads than one.
    has_threads: Cell<bool>,
    /// Addresses of gadgets by process.
    gadgets: RefCell<HashMap<u32, u64>>,
    /// With [`Stops::All`], threads whose next system call stop is the return of a call.
    in_call: RefCell<HashSet<i32>>,
    /// What was met while a tracee made calls and is for the main loop.
    met: RefCell<Vec<(i32, Stop)>>,
}

impl Tracees {
    /// None yet.
    pub fn new(stops: Stops, pass: Pass) -> Self {
        Tracees {
            stops,
            forgets_signals: !probe::has_notify(),
            pass,
            watch: Watch::new(pass),
            has_threads: Cell::new(false),
            gadgets: Default::default(),
            in_call: Default::default(),
            met: Default::default(),
        }
    }

    /// What calls for the tracer are known by.
    pub fn pass(&self) -> Pass {
        self.pass
    }

    /// A task was made that may be a thread.
    pub fn clones(&self) {
        self.has_threads.set(true);
    }

    /// Whether there may be threads, of which one that executes a program takes over its leader's number.
    pub fn has_threads(&self) -> bool {
        self.has_threads.get()
    }

    /// Which calls stop.
    pub fn stops(&self) -> Stops {
        self.stops
    }

    /// Lets a tracee go on to its next stop, with a signal (0 for none).
    ///
    /// # Errors
    /// As [`ptrace::resume`].
    pub fn resume(&self, tid: i32, signal: i32) -> OsResult<()> {
        if self.forgets_signals && signal == 0 {
            // The signal stays pending, but nobody is told of it: one that makes nothing but trapped calls could not even be
            // terminated. Unblocking makes gVisor look at what is pending.
            let mask = ptrace::signal_mask(tid)?;
            ptrace::set_signal_mask(tid, u64::MAX)?;
            ptrace::set_signal_mask(tid, mask)?;
        }
        self.resume_unblocked(tid, signal)
    }

    /// As [`Tracees::resume`], for a tracee whose signals were unblocked just now.
    ///
    /// # Errors
    /// As [`ptrace::resume`].
    pub fn resume_unblocked(&self, tid: i32, signal: i32) -> OsResult<()> {
        match self.stops {
            Stops::Selected => ptrace::resume(tid, signal),
            Stops::All => ptrace::resume_to_syscall(tid, signal),
        }
    }

    /// With [`Stops::All`]: whether a system call stop is the entry of a call, not its return.
    pub fn enters(&self, tid: i32) -> bool {
        let mut in_call = self.in_call.borrow_mut();
        let returns = in_call.remove(&tid);
        if !returns {
            in_call.insert(tid);
        }
        !returns
    }

    /// The thread is back from its call without having stopped there.
    pub fn has_returned(&self, tid: i32) {
        self.in_call.borrow_mut().remove(&tid);
    }

    /// The process executes another program, in the thread that now has the process's number.
    pub fn executes(&self, process: i32) {
        self.gadgets.borrow_mut().remove(&process.cast_unsigned());
        if self.stops == Stops::All {
            self.in_call.borrow_mut().insert(process);
        }
    }

    /// The thread, or process, ended.
    pub fn forget(&self, tid: i32) {
        self.gadgets.borrow_mut().remove(&tid.cast_unsigned());
        self.watch.forget(tid.cast_unsigned());
        self.has_returned(tid);
    }

    /// Where the gadget of a process is.
    pub fn gadget(&self, process: u32) -> Option<u64> {
        self.gadgets.borrow().get(&process).copied()
    }

    /// The process has a gadget, or none any more.
    pub fn set_gadget(&self, process: u32, address: Option<u64>) {
        let mut gadgets = self.gadgets.borrow_mut();
        match address {
            Some(address) => gadgets.insert(process, address),
            None => gadgets.remove(&process),
        };
    }

    /// Leaves a stop to the main loop.
    pub fn leave(&self, tid: i32, stop: Stop) {
        self.met.borrow_mut().push((tid, stop));
    }

    /// What was left to the main loop.
    pub fn take_left(&self) -> Vec<(i32, Stop)> {
        std::mem::take(&mut self.met.borrow_mut())
    }
}
