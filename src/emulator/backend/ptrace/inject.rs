//! System calls that a stopped tracee makes for its tracer.
//!
//! The first one of an address space replaces the trapped call and maps a few pages; the first page then gets the
//! *gadget*, a system call instruction and a breakpoint, the others are for what calls point to. Further calls run
//! there, one stop each. The instruction that the program itself used cannot be used again: gVisor patches it.

use std::cell::RefCell;
use std::collections::HashMap;

use nix::errno::Errno as OsErrno;

use super::registers::{self, GADGET_LEN, Mode};
use crate::emulator::sys::ptrace::{self, Registers, Stop};
use crate::emulator::sys::{OsResult, memory};
use crate::emulator::syscall;

const PAGE: u64 = 4096;

/// Bytes for what calls point to.
pub const SCRATCH: usize = 4 * PAGE as usize;

/// All signals but SIGTRAP, one bit each from signal 1: the gadget's own must get through.
const ALL_BUT_TRAP: u64 = !(1 << (libc::SIGTRAP - 1));

/// Addresses of gadgets by process, and stops that were met on the way.
#[derive(Default)]
pub struct Gadgets {
    by_process: RefCell<HashMap<u32, u64>>,
    /// What ended sessions: the end of the tracee, or the program that another of its threads executed.
    ended: RefCell<Vec<(i32, Stop)>>,
}

impl Gadgets {
    /// Forgets the gadget of a process that ended or executes another program.
    pub fn forget(&self, process: i32) {
        self.by_process.borrow_mut().remove(&process.cast_unsigned());
    }

    /// What ended sessions, for the main loop.
    pub fn take_ended(&self) -> Vec<(i32, Stop)> {
        std::mem::take(&mut self.ended.borrow_mut())
    }
}

/// A tracee that makes calls for its tracer.
pub struct Session<'t> {
    gadgets: &'t Gadgets,
    tid: i32,
    process: u32,
    mode: Mode,
    /// What the trapped call was made with.
    saved: Registers,
    mask: u64,
    gadget: u64,
    /// A signal that cannot be blocked and came meanwhile.
    deferred: i32,
}

impl<'t> Session<'t> {
    /// Takes a tracee in its seccomp stop. Whatever happens, the trapped call is not run afterwards by itself.
    ///
    /// # Errors
    /// ESRCH: it was killed. Otherwise why it cannot map memory.
    pub fn begin(gadgets: &'t Gadgets, tid: i32, process: u32, saved: Registers) -> OsResult<Self> {
        let mask = ptrace::signal_mask(tid)?;
        ptrace::set_signal_mask(tid, ALL_BUT_TRAP)?;
        let mode = Mode::of(&saved);
        let mut session = Session { gadgets, tid, process, mode, saved, mask, gadget: 0, deferred: 0 };
        let known = gadgets.by_process.borrow().get(&process).copied();
        match known {
            Some(gadget) => session.gadget = gadget,
            None => {
                session.make_gadget().inspect_err(|_| session.restore_mask())?;
                gadgets.by_process.borrow_mut().insert(process, session.gadget);
            }
        }
        Ok(session)
    }

    fn restore_mask(&self) {
        let _ = ptrace::set_signal_mask(self.tid, self.mask);
    }

    fn number(&self, name: &str) -> OsResult<u32> {
        syscall::number(name, self.mode.abi()).ok_or(OsErrno::ENOSYS)
    }

    fn make_gadget(&mut self) -> OsResult<()> {
        let map = match self.mode {
            Mode::Long => "mmap",
            Mode::Compat => "mmap2",
        };
        let mut registers = self.saved;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let args = [0, PAGE + SCRATCH as u64, prot as u64, flags as u64, u64::MAX, 0];
        let nr = self.number(map)?;
        registers::set_call(&mut registers, self.mode, nr, args);
        // In place of the trapped call.
        registers.orig_rax = u64::from(nr);
        registers.rax = self.saved.rax;
        ptrace::set_registers(self.tid, &registers)?;
        ptrace::resume_to_syscall(self.tid)?;
        let address = loop {
            match self.wait()? {
                Stop::Syscall => {
                    let registers = ptrace::registers(self.tid)?;
                    let result = registers::result_of(&registers, self.mode);
                    // Linux has passed the entry by now, gVisor has not: there this is what entries show.
                    if result != -i64::from(libc::ENOSYS) {
                        break result;
                    }
                    ptrace::resume_to_syscall(self.tid)?;
                }
                _ => ptrace::resume_to_syscall(self.tid)?,
            }
        };
        self.gadget = u64::try_from(address).map_err(|_| OsErrno::from_raw(-address as i32))?;
        ptrace::poke(self.tid, self.gadget, &self.mode.gadget())?;
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        self.call("mprotect", [self.scratch(), SCRATCH as u64, prot, 0, 0, 0]).map(drop)
    }

    /// Where [`SCRATCH`] bytes can be written for the tracee's calls.
    pub fn scratch(&self) -> u64 {
        self.gadget + PAGE
    }

    /// Writes at the beginning of the scratch memory.
    ///
    /// # Errors
    /// EFAULT: the program unmapped it. ESRCH.
    pub fn write(&self, bytes: &[u8]) -> OsResult<()> {
        memory::write(self.tid.cast_unsigned(), self.scratch(), bytes)
    }

    /// Makes the tracee call `name`; gives what the call returns when that is no error.
    ///
    /// # Errors
    /// The call's; ESRCH: the tracee was killed.
    pub fn call(&mut self, name: &str, args: [u64; 6]) -> OsResult<i64> {
        let nr = self.number(name)?;
        self.call_number(nr, args)
    }

    fn call_number(&mut self, nr: u32, args: [u64; 6]) -> OsResult<i64> {
        let mut registers = self.saved;
        registers::set_call(&mut registers, self.mode, nr, args);
        registers.orig_rax = registers::NO_CALL;
        registers.rip = self.gadget;
        ptrace::set_registers(self.tid, &registers)?;
        ptrace::resume(self.tid, 0)?;
        loop {
            match self.wait()? {
                Stop::Signal(libc::SIGTRAP) => break,
                Stop::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL) => return self.lost(),
                Stop::Signal(signal) => {
                    self.deferred = signal;
                    ptrace::resume(self.tid, 0)?;
                }
                // The filter, which holds for these calls too.
                _ => ptrace::resume(self.tid, 0)?,
            }
        }
        let registers = ptrace::registers(self.tid)?;
        if registers.rip != self.gadget + GADGET_LEN {
            return self.lost();
        }
        match registers::result_of(&registers, self.mode) {
            error @ -4095..0 => Err(OsErrno::from_raw(-error as i32)),
            result => Ok(result),
        }
    }

    /// The program unmapped the gadget. This call fails; the next one makes another.
    fn lost<T>(&self) -> OsResult<T> {
        self.gadgets.by_process.borrow_mut().remove(&self.process);
        Err(OsErrno::EFAULT)
    }

    fn wait(&self) -> OsResult<Stop> {
        loop {
            match ptrace::wait(self.tid, 0) {
                Ok(Some((
                    tid,
                    stop @ (Stop::Exited(_) | Stop::Killed(_) | Stop::Event(libc::PTRACE_EVENT_EXEC)),
                ))) => {
                    self.gadgets.ended.borrow_mut().push((tid, stop));
                    return Err(OsErrno::ESRCH);
                }
                Ok(Some((_, stop))) => return Ok(stop),
                Ok(None) | Err(OsErrno::EINTR) => {}
                Err(_) => return Err(OsErrno::ESRCH),
            }
        }
    }

    /// Runs the trapped call after all; gives what it returns, an error as a negative number.
    ///
    /// # Errors
    /// ESRCH.
    pub fn run_trapped(&mut self) -> OsResult<i64> {
        let (nr, args) = registers::call_of(&self.saved, self.mode.abi());
        match self.call_number(nr, args) {
            Err(OsErrno::ESRCH) => Err(OsErrno::ESRCH),
            Err(errno) => Ok(-(errno as i64)),
            Ok(result) => Ok(result),
        }
    }

    /// Lets the program go on as if the trapped call had returned this.
    ///
    /// # Errors
    /// ESRCH.
    pub fn finish(self, result: i64) -> OsResult<()> {
        let mut registers = self.saved;
        registers::skip(&mut registers, result);
        ptrace::set_registers(self.tid, &registers)?;
        ptrace::set_signal_mask(self.tid, self.mask)?;
        ptrace::resume(self.tid, self.deferred)
    }
}
