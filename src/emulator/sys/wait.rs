//! waitpid(2), kill(2) and dying of a signal, with signals as plain numbers: the types of the nix crate have no
//! real-time signals, and a status that names one would be lost.

use nix::errno::Errno as OsErrno;
use nix::sys::signal::SigSet;

use super::{OsResult, check};

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
    /// This signal stopped it.
    Stopped(i32),
    /// It goes on.
    Continued,
}

/// Any child.
pub const ANY: i32 = -1;

/// Waits for a change of a child, or of [`ANY`]; `None` when WNOHANG is among the options and there is none.
///
/// # Errors
/// ECHILD: no such child. EINTR.
pub fn wait(pid: i32, options: i32) -> OsResult<Option<(i32, Change)>> {
    let mut status = 0;
    // SAFETY: the status is a live int.
    let pid = check(unsafe { libc::waitpid(pid, &raw mut status, options) })?;
    let change = if libc::WIFEXITED(status) {
        Change::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Change::Killed(libc::WTERMSIG(status))
    } else if libc::WIFSTOPPED(status) {
        Change::Stopped(libc::WSTOPSIG(status))
    } else {
        Change::Continued
    };
    Ok((pid != 0).then_some((pid, change)))
}

/// As [`wait`] without options, whatever signals come.
///
/// # Errors
/// ECHILD: no such child.
pub fn wait_for(pid: i32) -> OsResult<Change> {
    loop {
        match wait(pid, 0) {
            Ok(Some((_, change))) => return Ok(change),
            Ok(None) | Err(OsErrno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends a signal.
///
/// # Errors
/// As kill(2).
pub fn kill(pid: i32, signal: i32) -> OsResult<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Ends this process by the default action of a signal, under the given mask but for the signal itself. Returns
/// when the signal does not kill.
pub fn die_of(signal: i32, mask: &SigSet) {
    super::process::restore_default_action(signal);
    let mut mask = *mask.as_ref();
    // SAFETY: the set is live.
    unsafe { libc::sigdelset(&raw mut mask, signal) };
    // SAFETY: no memory is passed.
    unsafe { libc::raise(signal) };
    // SAFETY: the set is live; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_signals_are_told() {
        let number = libc::SIGRTMIN() + 3;
        for (script, change) in [
            (format!("kill -{number} $$"), Change::Killed(number)),
            ("exit 7".to_owned(), Change::Exited(7)),
            ("kill -STOP $$".to_owned(), Change::Stopped(libc::SIGSTOP)),
        ] {
            #[allow(clippy::zombie_processes, reason = "waited for below")]
            let child = std::process::Command::new("sh").args(["-c", &script]).spawn().expect("started");
            let pid = child.id().cast_signed();
            let told = wait(pid, libc::WUNTRACED).expect("a child");
            assert_eq!(told, Some((pid, change)), "{script}");
            if matches!(change, Change::Stopped(_)) {
                kill(pid, libc::SIGKILL).expect("it is ours");
                assert_eq!(wait_for(pid), Ok(Change::Killed(libc::SIGKILL)));
            }
        }
    }
}
