//! What the process was given before the Rust runtime and the C library changed it.
//!
//! The runtime opens `/dev/null` on a closed standard descriptor and ignores SIGPIPE before `main` runs; the C
//! library takes two signals for itself once there are threads. The program that sysemu wraps must get what
//! sysemu itself was given, so both are noted by an initialiser that runs earlier.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{OsResult, check};

static CLOSED: AtomicU32 = AtomicU32::new(0);
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// The soft and the hard RLIMIT_NOFILE that were changed.
static LIMITS: OnceLock<(u64, u64)> = OnceLock::new();

/// Signals whose action changes before the program is started: SIGPIPE, and glibc's SIGCANCEL and SIGSETXID.
const CHANGED: [i32; 3] = [libc::SIGPIPE, 32, 33];

/// `struct sigaction` of the kernel on 64-bit targets; the C library refuses to touch its own signals.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

fn rt_sigaction(signal: i32, new: Option<&KernelAction>, old: Option<&mut KernelAction>) -> OsResult<()> {
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    let old = old.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: both pointers are null or refer to live structs of the kernel's layout; no handler is set.
    check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) }).map(drop)
}

extern "C" fn note() {
    for fd in 0..3 {
        // SAFETY: F_GETFD takes no memory and changes nothing.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
    for signal in CHANGED {
        let mut action = KernelAction::default();
        if rt_sigaction(signal, None, Some(&mut action)).is_ok() && action.handler == libc::SIG_IGN {
            IGNORED.fetch_or(1 << signal, Ordering::Relaxed);
        }
    }
}

// SAFETY: the loader calls the functions of this section once each, before main, on the only thread; `note`
// touches atomics, a constant thread-local and makes system calls only, so it needs nothing that main would
// set up.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

/// Standard descriptors (of 0, 1, 2) that were closed when the process started.
pub fn closed_at_start() -> impl Iterator<Item = i32> {
    let closed = CLOSED.load(Ordering::Relaxed);
    (0..3).filter(move |fd| closed & (1 << fd) != 0)
}

/// Gives the signals that were changed the actions they had. Async-signal-safe.
pub fn restore_signal_actions() {
    let ignored = IGNORED.load(Ordering::Relaxed);
    for signal in CHANGED {
        let handler = if ignored & (1 << signal) != 0 { libc::SIG_IGN } else { libc::SIG_DFL };
        let action = KernelAction { handler, ..KernelAction::default() };
        let _ = rt_sigaction(signal, Some(&action), None);
    }
}

/// Lets this process open as many files as it may, and at least `wanted` where it has the privilege for that. Gives how
/// many it may open now.
///
/// # Errors
/// As getrlimit(2).
pub fn raise_descriptor_limit(wanted: u64) -> OsResult<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    LIMITS.get_or_init(|| (soft, hard));
    let more = hard.max(wanted);
    let is_raised = setrlimit(Resource::RLIMIT_NOFILE, more, more).is_ok();
    if !is_raised {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(if is_raised { more } else { hard })
}

/// Gives the process that becomes the program the limit of open files that sysemu was started with. Async-signal-safe.
pub fn restore_descriptor_limit() {
    if let Some((soft, hard)) = LIMITS.get() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard);
    }
}
