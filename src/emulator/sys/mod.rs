//! The supervisor's own system calls: the only folder with `unsafe`.
//!
//! Rules of the folder: one kernel call for each unsafe block, with the reason why no safe way exists and the
//! invariant that makes it sound; raw descriptors never leave (only `OwnedFd` and `BorrowedFd` do); nothing
//! here knows what a call means to the tracee.
//!
//! Each wrapper counts one kernel entry for its thread, because entries and context switches are what a
//! trapped call costs. [`spent`] reads the count; tests assert it, and compare it with strace(1). Not seen
//! here: descriptors that close by going out of scope (see [`file::close`]), and what libraries do.

#![allow(unsafe_code, reason = "the one folder that talks to the kernel directly")]

use std::cell::Cell;

use nix::errno::Errno as OsErrno;

pub mod creds;
pub mod file;
pub mod memory;
pub mod mount;
pub mod process;
pub mod ptrace;
pub mod seccomp;
pub mod spawn;
pub mod startup;
pub mod tape;
pub mod wait;

/// Result of a system call that the supervisor makes for itself.
pub type OsResult<T> = Result<T, OsErrno>;

/// What a thread spent through this folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Kernel entries.
    pub entries: u64,
    /// Stops of tracees that it heard of.
    pub stops: u64,
}

impl std::ops::Sub for Spent {
    type Output = Spent;

    fn sub(self, earlier: Spent) -> Spent {
        Spent { entries: self.entries - earlier.entries, stops: self.stops - earlier.stops }
    }
}

thread_local! {
    static SPENT: Cell<Spent> = const { Cell::new(Spent { entries: 0, stops: 0 }) };
}

/// What the calling thread has spent so far.
pub fn spent() -> Spent {
    SPENT.get()
}

fn count() {
    let spent = SPENT.get();
    SPENT.set(Spent { entries: spent.entries + 1, ..spent });
}

fn count_stop() {
    let spent = SPENT.get();
    SPENT.set(Spent { stops: spent.stops + 1, ..spent });
}

/// Turns the return value of a libc call (-1 and errno on failure) into a result, and counts the entry.
fn check<T: Into<i64> + Copy>(ret: T) -> OsResult<T> {
    count();
    if ret.into() == -1 { Err(OsErrno::last()) } else { Ok(ret) }
}
