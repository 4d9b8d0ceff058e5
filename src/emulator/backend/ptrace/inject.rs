//! System calls that a stopped tracee makes for its tracer.
//!
//! The first one of an address space replaces the trapped call and maps a few pages; the first page then gets the
//! *gadget*, a system call instruction and a breakpoint, the others are for what calls point to. Further calls run
//! there, one stop each. The instruction that the program itself used cannot be used again: gVisor patches it.

use nix::errno::Errno as OsErrno;

use super::registers::{self, GADGET_LEN, Mode};
use super::tracees::Tracees;
use crate::emulator::sys::ptrace::{self, Registers, Stop};
use crate::emulator::sys::seccomp::Instruction;
use crate::emulator::sys::{OsResult, memory};
use crate::emulator::syscall;

const PAGE: u64 = 4096;

/// Bytes for what calls point to.
pub const SCRATCH: usize = 4 * PAGE as usize;

/// All signals but SIGTRAP, one bit each from signal 1: the gadget's own must get through.
const ALL_BUT_TRAP: u64 = !(1 << (libc::SIGTRAP - 1));

/// A tracee that makes calls for its tracer.
pub struct Session<'t> {
    tracees: &'t Tracees,
    tid: i32,
    process: u32,
    mode: Mode,
    /// What the trapped call was made with.
    saved: Registers,
    mask: u64,
    gadget: Option<u64>,
    /// The trapped call gave way to another and cannot simply be run any more.
    is_replaced: bool,
    /// Why there is no gadget, when none can be made any more.
    refusal: OsErrno,
    /// A signal that cannot be held back and came meanwhile.
    deferred: i32,
    /// The whole process was stopped meanwhile.
    is_to_stop: bool,
}

impl<'t> Session<'t> {
    /// Takes a tracee in the stop of its trapped call.
    ///
    /// # Errors
    /// ESRCH: it was killed.
    pub fn begin(tracees: &'t Tracees, tid: i32, process: u32, saved: Registers) -> OsResult<Self> {
        let mask = ptrace::signal_mask(tid)?;
        ptrace::set_signal_mask(tid, ALL_BUT_TRAP)?;
        let mode = Mode::of(&saved);
        // gVisor does not always tell under the process's number that one of its threads executed another program.
        let is_there = |gadget: &u64| {
            let mut bytes = [0; GADGET_LEN as usize];
            memory::read(tid.cast_unsigned(), *gadget, &mut bytes).is_ok() && bytes == mode.gadget()
        };
        Ok(Session {
            tracees,
            tid,
            process,
            mode,
            saved,
            mask,
            gadget: tracees.gadget(process).filter(is_there),
            is_replaced: false,
            refusal: OsErrno::EIO,
            deferred: 0,
            is_to_stop: false,
        })
    }

    /// The process that the tracee belongs to.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Gives all threads of the process one more filter.
    ///
    /// # Errors
    /// EACCES: the program gave up the right to. ESRCH: a thread has other filters. As [`Session::call`].
    pub fn install_filter(&mut self, program: &[Instruction]) -> OsResult<()> {
        let header_len = if self.mode == Mode::Compat { 8 } else { 16 };
        let place = self.write(&[0; 16])? + 16;
        let mut bytes = vec![0; 16];
        bytes[..2].copy_from_slice(&u16::try_from(program.len()).map_err(|_| OsErrno::EINVAL)?.to_ne_bytes());
        bytes[header_len / 2..header_len].copy_from_slice(&place.to_ne_bytes()[..header_len / 2]);
        for instruction in program {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
        if bytes.len() > SCRATCH {
            return Err(OsErrno::ENOSPC);
        }
        let header = self.write(&bytes)?;
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
        match self.call("seccomp", [mode.into(), flags, header, 0, 0, 0])? {
            0 => Ok(()),
            // The thread that stands in the way.
            _ => Err(OsErrno::ESRCH),
        }
    }

    fn number(&self, name: &str) -> OsResult<u32> {
        syscall::number(name, self.mode.abi()).ok_or(OsErrno::ENOSYS)
    }

    /// Where the gadget is, made when there is none.
    fn gadget(&mut self) -> OsResult<u64> {
        match self.gadget {
            Some(gadget) => Ok(gadget),
            // Only one call can take the place of the trapped one.
            None if self.is_replaced => Err(self.refusal),
            None => self.make_gadget().inspect_err(|errno| self.refusal = *errno),
        }
    }

    fn make_gadget(&mut self) -> OsResult<u64> {
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
        self.is_replaced = true;
        let address = loop {
            if self.advance(|tid| ptrace::resume_to_syscall(tid, 0))? == Stop::Syscall {
                let registers = ptrace::registers(self.tid)?;
                let result = registers::result_of(&registers, self.mode);
                // Linux has passed the entry by now, gVisor has not: there this is what entries show.
                if result != -i64::from(libc::ENOSYS) {
                    break result;
                }
            }
        };
        let gadget = u64::try_from(address).map_err(|_| OsErrno::from_raw(-address as i32))?;
        ptrace::poke(self.tid, gadget, &self.mode.gadget())?;
        self.gadget = Some(gadget);
        self.tracees.set_gadget(self.process, self.gadget);
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        self.call("mprotect", [gadget + PAGE, SCRATCH as u64, prot, 0, 0, 0])?;
        Ok(gadget)
    }

    /// The mode of the processor that its calls are made in.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The tracee.
    pub fn tid(&self) -> u32 {
        self.tid.cast_unsigned()
    }

    /// Writes to memory of the tracee that its calls can point to, and gives the address.
    ///
    /// # Errors
    /// Why it cannot map memory; EFAULT, EIO: the program unmapped it. ESRCH.
    pub fn write(&mut self, bytes: &[u8]) -> OsResult<u64> {
        let scratch = self.gadget()? + PAGE;
        memory::write(self.tid.cast_unsigned(), scratch, bytes)?;
        Ok(scratch)
    }

    /// Makes the tracee call `name`, which has five arguments at most; gives what the call returns when that is no error.
    ///
    /// # Errors
    /// The call's; ESRCH: the tracee was killed. Otherwise why it cannot map memory.
    pub fn call(&mut self, name: &str, mut args: [u64; 6]) -> OsResult<i64> {
        let nr = self.number(name)?;
        args[5] = self.tracees.pass().0;
        self.call_number(nr, args)
    }

    fn call_number(&mut self, nr: u32, args: [u64; 6]) -> OsResult<i64> {
        let gadget = self.gadget()?;
        let mut registers = self.saved;
        registers::set_call(&mut registers, self.mode, nr, args);
        registers.orig_rax = registers::NO_CALL;
        registers.rip = gadget;
        ptrace::set_registers(self.tid, &registers)?;
        self.is_replaced = true;
        let registers = loop {
            match self.advance(|tid| ptrace::resume(tid, 0))? {
                Stop::Signal(libc::SIGTRAP) => {
                    let registers = ptrace::registers(self.tid)?;
                    if registers.rip == gadget + GADGET_LEN {
                        break registers;
                    }
                    // Somebody else's.
                    self.deferred = libc::SIGTRAP;
                }
                Stop::Signal(_) => return self.lose_gadget(),
                _ => {}
            }
        };
        match registers::result_of(&registers, self.mode) {
            error @ -4095..0 => Err(OsErrno::from_raw(-error as i32)),
            result => Ok(result),
        }
    }

    /// The program unmapped the gadget. This call fails; the next session makes another.
    fn lose_gadget<T>(&mut self) -> OsResult<T> {
        self.gadget = None;
        self.tracees.set_gadget(self.process, None);
        Err(self.refusal)
    }

    /// Lets the tracee run to the next stop that is part of a call: of the call itself, SIGTRAP or a fault.
    fn advance(&mut self, resume: impl Fn(i32) -> OsResult<()>) -> OsResult<Stop> {
        loop {
            resume(self.tid)?;
            match self.wait()? {
                Stop::Group(_) => self.is_to_stop = true,
                stop @ Stop::Signal(libc::SIGTRAP | libc::SIGSEGV | libc::SIGBUS | libc::SIGILL) => {
                    return Ok(stop);
                }
                Stop::Signal(signal) => self.deferred = signal,
                stop @ Stop::Syscall => return Ok(stop),
                // The filter, which holds for 32-bit calls and for the trapped call that is run after all; the end of
                // a stop.
                _ => {}
            }
        }
    }

    fn wait(&self) -> OsResult<Stop> {
        loop {
            match ptrace::wait(self.tid, 0) {
                Ok(Some((
                    tid,
                    stop @ (Stop::Exited(_) | Stop::Killed(_) | Stop::Event(libc::PTRACE_EVENT_EXEC)),
                ))) => {
                    self.tracees.leave(tid, stop);
                    return Err(OsErrno::ESRCH);
                }
                Ok(Some((_, stop))) => return Ok(stop),
                Ok(None) | Err(OsErrno::EINTR) => {}
                Err(_) => return Err(OsErrno::ESRCH),
            }
        }
    }

    /// Lets the trapped call be run after all.
    ///
    /// # Errors
    /// ESRCH.
    pub fn finish_with_call(mut self) -> OsResult<()> {
        if !self.is_replaced {
            ptrace::set_signal_mask(self.tid, self.mask)?;
            return self.tracees.resume_unblocked(self.tid, 0);
        }
        let (nr, args) = registers::call_of(&self.saved, self.mode.abi());
        match self.call_number(nr, args) {
            Err(OsErrno::ESRCH) => Err(OsErrno::ESRCH),
            Err(errno) => self.finish(-(errno as i64)),
            Ok(result) => self.finish(result),
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
        if self.is_replaced {
            self.tracees.has_returned(self.tid);
        }
        if self.is_to_stop {
            // It went on in spite of the stop; this brings it back there, if the stop still lasts.
            ptrace::interrupt(self.tid)?;
        }
        self.tracees.resume_unblocked(self.tid, self.deferred)
    }
}
