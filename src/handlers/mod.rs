//! Behaviour: what the answer to a call is. Files here import from [`crate::emulator`], never the reverse.
//!
//! A file for each family of calls; [`all`] is the registry. To add a call to a family, add a row there; to
//! add a family, add a file and a line to [`all`].

use crate::emulator::syscall::{Activation, Syscall};
use crate::policy::Policy;

pub mod access;
pub mod cwd;
pub mod handle;
pub mod inotify;
pub mod listing;
pub mod machine;
pub mod mounts;
pub mod names;
pub mod open;
pub mod providers;
pub mod readlink;
pub mod rings;
pub mod stat;
pub mod statfs;
pub mod track;
pub mod uname;
pub mod xattr;

/// Every system call row of the product.
pub fn all() -> Vec<Syscall> {
    [
        open::rows(),
        stat::rows(),
        access::rows(),
        readlink::rows(),
        statfs::rows(),
        cwd::rows(),
        listing::rows(),
        inotify::rows(),
        xattr::rows(),
        handle::rows(),
        mounts::rows(),
        track::rows(),
        rings::rows(),
        uname::rows(),
        machine::rows(),
    ]
    .concat()
}

fn trap_if(needed: bool) -> Activation {
    if needed { Activation::Trap } else { Activation::Off }
}

/// Calls that take a path are needed once the tree holds anything, or a directory looks otherwise than it is.
fn for_paths(policy: &Policy) -> Activation {
    trap_if(!policy.rows.is_empty() || !policy.stat.is_empty())
}
