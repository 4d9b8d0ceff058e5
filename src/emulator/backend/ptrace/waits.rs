//! Waits that a signal ends which the program never sees.
//!
//! The kernel drops a signal that is ignored before anybody is woken; of a traced task it first asks the tracer, and the
//! task's call is over by then. Most calls are started again by themselves when no handler runs. A few are not: they say
//! EINTR, as they do after a stop. Here they are told apart from those that a program would see.

use super::registers::{self, Mode};
use crate::emulator::sys::ptrace::Registers;
use crate::emulator::syscall;

/// What the kernel takes for "start this call again, but fail with EINTR if a handler runs". (In no header for programs.)
const ERESTARTNOHAND: i64 = 514;

/// When such a call waits for as long as it takes. Started again, one with a time would wait for all of it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endless {
    Always,
    /// This argument, of 32 bits, is negative.
    Negative(usize),
    /// This argument points nowhere.
    Null(usize),
    /// It is semop(2) or semtimedop(2) without a time, as ipc(2) of i386 numbers them.
    Semaphores,
}

/// Calls that are not started again, signal(7).
const WAITS: [(&str, Endless); 9] = [
    ("epoll_pwait", Endless::Negative(3)),
    ("epoll_pwait2", Endless::Null(3)),
    ("epoll_wait", Endless::Negative(3)),
    ("ipc", Endless::Semaphores),
    ("rt_sigtimedwait", Endless::Null(2)),
    ("rt_sigtimedwait_time64", Endless::Null(2)),
    ("semop", Endless::Always),
    ("semtimedop", Endless::Null(3)),
    ("semtimedop_time64", Endless::Null(3)),
];

/// What ipc(2) does, in its first argument; the upper half is a version.
const SEMOP: u64 = 1;
/// As [`SEMOP`].
const SEMTIMEDOP: u64 = 4;

/// Signals that end such a call natively too.
const STOPS: [i32; 5] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGCONT];

/// The registers with which a task at a stop for this signal goes on waiting, if it is ignored; `None` when it does not
/// wait without end. Whether a handler runs is left to the kernel, which then makes it the EINTR that it was.
pub fn again(registers: &Registers, signal: i32) -> Option<Registers> {
    let abi = Mode::of(registers).abi();
    let is_interrupted = registers::result_of(registers, Mode::of(registers)) == -i64::from(libc::EINTR);
    if !is_interrupted || registers.orig_rax == registers::NO_CALL || STOPS.contains(&signal) {
        return None;
    }
    let (nr, args) = registers::call_of(registers, abi);
    let (_, endless) = WAITS.iter().find(|(name, _)| syscall::number(name, abi) == Some(nr))?;
    let is_endless = match *endless {
        Endless::Always => true,
        Endless::Negative(arg) => (args[arg] as u32).cast_signed() < 0,
        Endless::Null(arg) => args[arg] == 0,
        Endless::Semaphores => matches!((args[0] & 0xffff, args[5]), (SEMOP, _) | (SEMTIMEDOP, 0)),
    };
    is_endless.then(|| Registers { rax: (-ERESTARTNOHAND).cast_unsigned(), ..*registers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::sys::ptrace::no_registers;

    #[test]
    fn only_interrupted_waits_without_end_go_on() {
        let eintr = (-i64::from(libc::EINTR)).cast_unsigned();
        let at = |nr: i64, r10: u64, rax: u64| {
            let orig_rax = nr.cast_unsigned();
            Registers { cs: 0x33, rax, orig_rax, r10, ..no_registers() }
        };
        let goes_on = |registers, signal| again(&registers, signal).is_some();
        let endless = u64::from(u32::MAX);
        assert!(goes_on(at(libc::SYS_epoll_wait, endless, eintr), libc::SIGCHLD));
        assert!(goes_on(at(libc::SYS_semop, 7, eintr), libc::SIGCHLD));
        assert!(!goes_on(at(libc::SYS_epoll_wait, 1000, eintr), libc::SIGCHLD));
        assert!(!goes_on(at(libc::SYS_epoll_wait, endless, eintr), libc::SIGCONT));
        assert!(!goes_on(at(libc::SYS_epoll_wait, endless, 1), libc::SIGCHLD));
        assert!(!goes_on(at(libc::SYS_read, endless, eintr), libc::SIGCHLD));
        assert!(!goes_on(at(-1, endless, eintr), libc::SIGCHLD));
    }
}
