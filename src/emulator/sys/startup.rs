//! What the process was given before the Rust runtime changed it.
//!
//! The runtime opens `/dev/null` on a closed standard descriptor and ignores SIGPIPE before `main` runs. The
//! program that sysemu wraps must get what sysemu itself was given, so both are noted by an initialiser that
//! runs earlier.

use std::sync::atomic::{AtomicU32, Ordering};

static CLOSED: AtomicU32 = AtomicU32::new(0);
static SIGPIPE_IGNORED: AtomicU32 = AtomicU32::new(0);

extern "C" fn note() {
    for fd in 0..3 {
        // SAFETY: F_GETFD takes no memory and changes nothing.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
    // SAFETY: plain old data.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only reads the current one into the live struct.
    unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action) };
    SIGPIPE_IGNORED.store((action.sa_sigaction == libc::SIG_IGN).into(), Ordering::Relaxed);
}

// SAFETY: the loader calls the functions of this section once each, before main, on the only thread; `note`
// touches atomics and makes system calls only, so it needs nothing that main would set up.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

/// Standard descriptors (of 0, 1, 2) that were closed when the process started.
pub fn closed_at_start() -> impl Iterator<Item = i32> {
    let closed = CLOSED.load(Ordering::Relaxed);
    (0..3).filter(move |fd| closed & (1 << fd) != 0)
}

/// Whether SIGPIPE was ignored when the process started.
pub fn sigpipe_was_ignored() -> bool {
    SIGPIPE_IGNORED.load(Ordering::Relaxed) != 0
}
