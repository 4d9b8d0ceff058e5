//! Where a system call has its number, arguments and result.

use crate::emulator::abi::{ABIS, Abi};
use crate::emulator::probe;
use crate::emulator::sys::ptrace::Registers;

/// Code segment of 64-bit programs on x86_64 (`__USER_CS`).
const USER64_CS: u64 = 0x33;

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

/// Which calls 64-bit code can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those of 32-bit programs too.
    Any,
    /// 64-bit ones alone.
    Long,
}

impl Calls {
    /// On this kernel. gVisor has no 32-bit calls; other kernels without user notification are older than Linux 5.0.
    pub fn here() -> Self {
        if probe::has_notify() { Calls::Any } else { Calls::Long }
    }
}

/// The ABI of a call that was trapped, where the registers alone tell it. Of 64-bit code that is the instruction
/// `syscall`, which leaves the address behind it in rcx, as instructions for 32-bit calls do not. (gVisor replaces it.)
pub fn abi_of(registers: &Registers, calls: Calls) -> Option<&'static Abi> {
    let r = registers;
    let is_long = r.cs == USER64_CS && (calls == Calls::Long || r.rcx == r.rip);
    // At its start a program has other values there, so a stop that is none for a call is told apart too.
    let is_call = r.rax.cast_signed() == -i64::from(libc::ENOSYS);
    let nr_bits = r.orig_rax as u32 & ABIS[2].nr_bits;
    (is_long && is_call).then(|| if nr_bits == 0 { &ABIS[0] } else { &ABIS[2] })
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::sys::ptrace::no_registers;

    #[test]
    fn the_abi_is_told_only_where_it_is_certain() {
        let registers = |cs, rcx, rax: i64, orig_rax| {
            let rax = rax.cast_unsigned();
            Registers { cs, rcx, rip: 0x1000, rax, orig_rax, ..no_registers() }
        };
        let enosys = -i64::from(libc::ENOSYS);
        let name = |registers: Registers, calls| abi_of(&registers, calls).map(|abi| abi.name);
        let any = |registers| name(registers, Calls::Any);
        assert_eq!(any(registers(USER64_CS, 0x1000, enosys, 262)), Some("x86_64"));
        assert_eq!(any(registers(USER64_CS, 0x1000, enosys, 262 | 0x4000_0000)), Some("x32"));
        // `int $0x80` in 64-bit code, 32-bit code, the start of a program.
        assert_eq!(any(registers(USER64_CS, 0x2000, enosys, 5)), None);
        assert_eq!(any(registers(USER32_CS, 0x1000, enosys, 5)), None);
        assert_eq!(any(registers(USER64_CS, 0x1000, 0, 59)), None);
        // Where nothing else can be meant.
        assert_eq!(name(registers(USER64_CS, 0x2000, enosys, 262), Calls::Long), Some("x86_64"));
        assert_eq!(name(registers(USER64_CS, 0x2000, 0, 59), Calls::Long), None);
    }
}
