//! ptrace(2) with signals as plain numbers, and what waitpid(2) says about tracees.
//!
//! Only requests that gVisor knows too; in particular not PTRACE_GET_SYSCALL_INFO. All of them have to be made
//! by the thread that seized the tracee.

use nix::errno::Errno as OsErrno;

use super::spawn::{self, Side};
use super::{OsResult, check};

/// General registers of x86_64, which hold those of i386 programs as well.
pub type Registers = libc::user_regs_struct;

/// Why a tracee was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ended with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
    /// A PTRACE_EVENT_* that was asked for.
    Event(i32),
    /// PTRACE_EVENT_STOP with one of the stopping signals: its whole process stopped.
    Group(i32),
    /// PTRACE_EVENT_STOP otherwise: it is new, was interrupted, or its process goes on after a stop.
    Trap,
    /// Entry into or return from a system call (PTRACE_O_TRACESYSGOOD).
    Syscall,
    /// This signal is about to be delivered.
    Signal(i32),
}

const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

impl Stop {
    fn of(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            return Stop::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return Stop::Killed(libc::WTERMSIG(status));
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            0 if signal == SYSCALL_STOP => Stop::Syscall,
            0 => Stop::Signal(signal),
            libc::PTRACE_EVENT_STOP
                if [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) =>
            {
                Stop::Group(signal)
            }
            libc::PTRACE_EVENT_STOP => Stop::Trap,
            event => Stop::Event(event),
        }
    }
}

/// Waits for a tracee, or for any (-1); `None` when WNOHANG is among the options and nothing happened.
///
/// # Errors
/// ECHILD: there is none. EINTR.
pub fn wait(pid: i32, options: i32) -> OsResult<Option<(i32, Stop)>> {
    let mut status = 0;
    // SAFETY: the status is a live int.
    let pid = check(unsafe { libc::waitpid(pid, &raw mut status, options | libc::__WALL) })?;
    if pid == 0 {
        return Ok(None);
    }
    if libc::WIFSTOPPED(status) {
        super::count_stop();
    }
    Ok(Some((pid, Stop::of(status))))
}

/// Whether this process may trace a child, found by doing it.
///
/// Call it while the process has a single thread.
///
/// # Errors
/// EPERM: not allowed (Yama, a seccomp filter, a tracer of this process that has the child too).
pub fn try_seize() -> OsResult<()> {
    let child = match spawn::fork()? {
        Side::Child => loop {
            nix::unistd::pause();
        },
        Side::Parent(child) => child,
    };
    let seized = seize(child);
    let _ = super::wait::kill(child, libc::SIGKILL);
    let _ = super::wait::wait_for(child);
    seized
}

fn request(request: libc::c_uint, pid: i32, addr: usize, data: usize) -> OsResult<()> {
    // SAFETY: only requests whose arguments are plain numbers are made through here.
    check(unsafe { libc::ptrace(request, pid, addr, data) }).map(drop)
}

/// What a backend wants to hear of; the tracee dies with the tracer.
const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_EXITKILL;

/// PTRACE_SEIZE of a process that is about to execute a program. Until [`set_executed`] its exit is an event too.
///
/// # Errors
/// EPERM: it is traced already, or tracing is not allowed (Yama, capabilities). ESRCH.
pub fn seize(pid: i32) -> OsResult<()> {
    request(libc::PTRACE_SEIZE, pid, 0, (OPTIONS | libc::PTRACE_O_TRACEEXIT) as usize)
}

/// Does without the event of a stopped tracee's exit from now on.
///
/// # Errors
/// As [`resume`].
pub fn set_executed(pid: i32) -> OsResult<()> {
    request(libc::PTRACE_SETOPTIONS, pid, 0, OPTIONS as usize)
}

/// Stops a tracee with [`Stop::Trap`], or with [`Stop::Group`] if its process is stopped.
///
/// # Errors
/// ESRCH: it was killed meanwhile.
pub fn interrupt(pid: i32) -> OsResult<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, 0)
}

/// Lets go of a stopped tracee.
///
/// # Errors
/// As [`resume`].
pub fn detach(pid: i32) -> OsResult<()> {
    request(libc::PTRACE_DETACH, pid, 0, 0)
}

/// Lets a tracee run, with a signal (0 for none).
///
/// # Errors
/// ESRCH: it was killed meanwhile.
pub fn resume(pid: i32, signal: i32) -> OsResult<()> {
    request(libc::PTRACE_CONT, pid, 0, signal as usize)
}

/// Lets a tracee run to its next system call stop, with a signal (0 for none).
///
/// # Errors
/// As [`resume`].
pub fn resume_to_syscall(pid: i32, signal: i32) -> OsResult<()> {
    request(libc::PTRACE_SYSCALL, pid, 0, signal as usize)
}

/// Leaves a tracee of a stopped process stopped.
///
/// # Errors
/// As [`resume`].
pub fn listen(pid: i32) -> OsResult<()> {
    request(libc::PTRACE_LISTEN, pid, 0, 0)
}

/// What PTRACE_GETEVENTMSG says: for a seccomp event the filter's data, for an exit the wait status.
///
/// # Errors
/// As [`resume`].
pub fn event_message(pid: i32) -> OsResult<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the word is live.
    check(unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0usize, &raw mut message) })?;
    Ok(message)
}

/// Registers that are all 0.
pub fn no_registers() -> Registers {
    // SAFETY: plain old data.
    unsafe { std::mem::zeroed() }
}

/// The registers of a stopped tracee.
///
/// # Errors
/// As [`resume`].
pub fn registers(pid: i32) -> OsResult<Registers> {
    let mut registers = no_registers();
    // SAFETY: the struct is live and of the type that the request fills.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0usize, &raw mut registers) })?;
    Ok(registers)
}

/// Sets the registers of a stopped tracee.
///
/// # Errors
/// As [`resume`].
pub fn set_registers(pid: i32, registers: &Registers) -> OsResult<()> {
    // SAFETY: the struct is live and only read.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0usize, std::ptr::from_ref(registers)) }).map(drop)
}

/// The blocked signals of a stopped tracee, one bit each from signal 1.
///
/// # Errors
/// As [`resume`].
pub fn signal_mask(pid: i32) -> OsResult<u64> {
    let mut mask = 0u64;
    // SAFETY: the mask is live and of the size that is passed.
    check(unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, pid, size_of::<u64>(), &raw mut mask) })?;
    Ok(mask)
}

/// Sets the blocked signals of a stopped tracee.
///
/// # Errors
/// As [`resume`].
pub fn set_signal_mask(pid: i32, mask: u64) -> OsResult<()> {
    // SAFETY: the mask is live, of the size that is passed, and only read.
    check(unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, pid, size_of::<u64>(), &raw const mask) }).map(drop)
}

/// Writes bytes at an address of a stopped tracee, whatever the protection of its page. The rest of the last word
/// keeps what it had.
///
/// # Errors
/// EIO, EFAULT: not mapped. ESRCH.
pub fn poke(pid: i32, addr: u64, bytes: &[u8]) -> OsResult<()> {
    let at = |index: usize| (addr as usize).wrapping_add(index);
    for (index, chunk) in bytes.chunks(8).enumerate().map(|(index, chunk)| (index * 8, chunk)) {
        let mut word = [0u8; 8];
        if chunk.len() < 8 {
            word = peek(pid, at(index))?.to_ne_bytes();
        }
        word[..chunk.len()].copy_from_slice(chunk);
        request(libc::PTRACE_POKEDATA, pid, at(index), usize::from_ne_bytes(word))?;
    }
    Ok(())
}

fn peek(pid: i32, addr: usize) -> OsResult<i64> {
    OsErrno::clear();
    super::count();
    // The C library gives the word itself, so -1 is an error only with errno.
    // SAFETY: no memory of ours is passed.
    let word = unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, pid, addr, 0usize) };
    match OsErrno::last() {
        OsErrno::UnknownErrno => Ok(word),
        errno if word == -1 => Err(errno),
        _ => Ok(word),
    }
}
