//! Where a system call has its number, arguments and result.

use crate::emulator::abi::{ABIS, Abi};
use crate::emulator::sys::ptrace::Registers;

/// Code segment of 32-bit programs on x86_64 (`__USER32_CS`).
const USER32_CS: u64 = 0x23;

/// The mode of the processor, which decides how further calls are made; not the ABI of the trapped one, since
/// 64-bit programs can make 32-bit calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit code.
    Long,
    /// 32-bit code.
    Compat,
}

impl Mode {
    /// The mode of a stopped task.
    pub fn of(registers: &Registers) -> Self {
        if registers.cs == USER32_CS { Mode::Compat } else { Mode::Long }
    }

    /// The ABI of calls made in this mode.
    pub fn abi(self) -> &'static Abi {
        match self {
            Mode::Long => &ABIS[0],
            Mode::Compat => &ABIS[1],
        }
    }

    /// `syscall; int3`, or `int $0x80; int3`.
    pub fn gadget(self) -> [u8; GADGET_LEN as usize] {
        match self {
            Mode::Long => [0x0f, 0x05, 0xcc],
            Mode::Compat => [0xcd, 0x80, 0xcc],
        }
    }
}

/// Bytes of the gadget; the instruction pointer behind its breakpoint.
pub const GADGET_LEN: u64 = 3;

/// Number and arguments of a call that was trapped under an ABI.
pub fn call_of(registers: &Registers, abi: &Abi) -> (u32, [u64; 6]) {
    let r = registers;
    let nr = r.orig_rax as u32;
    if abi.scmp == ABIS[1].scmp {
        let low = |value: u64| u64::from(value as u32);
        return (nr, [low(r.rbx), low(r.rcx), low(r.rdx), low(r.rsi), low(r.rdi), low(r.rbp)]);
    }
    (nr, [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9])
}

/// Changes the first argument of a call that was trapped under an ABI.
pub fn set_first(registers: &mut Registers, abi: &Abi, value: u64) {
    if abi.scmp == ABIS[1].scmp { registers.rbx = value } else { registers.rdi = value }
}

/// Puts number and arguments of a further call in place.
pub fn set_call(registers: &mut Registers, mode: Mode, nr: u32, args: [u64; 6]) {
    let r = registers;
    r.rax = u64::from(nr);
    match mode {
        Mode::Long => [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = args,
        Mode::Compat => [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp] = args,
    }
}

/// The result in the registers of a task that made a call in this mode.
pub fn result_of(registers: &Registers, mode: Mode) -> i64 {
    match mode {
        Mode::Long => registers.rax.cast_signed(),
        Mode::Compat => {
            let low = (registers.rax as u32).cast_signed();
            // Addresses are results too; only the last page is errors.
            if (-4095..0).contains(&low) { low.into() } else { i64::from(low.cast_unsigned()) }
        }
    }
}

/// The number that stands for "no call": all 64 bits, because gVisor looks at all of them.
pub const NO_CALL: u64 = u64::MAX;

/// Makes the pending call return this instead of being run.
pub fn skip(registers: &mut Registers, result: i64) {
    registers.orig_rax = NO_CALL;
    registers.rax = result.cast_unsigned();
}
