//! The new mount API: fsopen(2), fspick(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).
//!
//! By default these run unchanged: a procfs that is mounted or kept detached by them is recognised by its
//! file system when paths lead through it. A policy can have them answered with ENOSYS instead, so that
//! programs fall back to mount(2).

use super::open::open_path;
use super::{for_paths, trap_if};
use crate::emulator::abi::OpenFlags;
use crate::emulator::errno::Errno;
use crate::emulator::failure::Failure;
use crate::emulator::reply::Reply;
use crate::emulator::resolve::{Final, Found};
use crate::emulator::syscall::{Activation, Call, Syscall};
use crate::policy::{MountApi, Policy};

fn refused(policy: &Policy) -> Activation {
    match policy.options.mount_api {
        MountApi::Enosys => Activation::Refuse(Errno::ENOSYS),
        MountApi::Emulate => Activation::Off,
    }
}

fn refused_or_trapped(policy: &Policy) -> Activation {
    match policy.options.mount_api {
        MountApi::Enosys => Activation::Refuse(Errno::ENOSYS),
        MountApi::Emulate => trap_if(for_paths(policy) == Activation::Trap),
    }
}

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    let unchanged = |name| Syscall::new(name, refused, |_| Ok(Reply::Continue));
    let tracked = |name| Syscall::new(name, refused_or_trapped, super::track::invalidate);
    vec![
        unchanged("fsopen"),
        unchanged("fsconfig"),
        unchanged("fspick"),
        unchanged("fsmount"),
        tracked("move_mount"),
        tracked("mount_setattr"),
        Syscall::new("open_tree", refused_or_trapped, open_tree),
    ]
}

const OPEN_TREE_CLONE: i32 = 1;

fn open_tree(call: &Call<'_>) -> Result<Reply, Failure> {
    let flags = call.int(2);
    if call.args[1] == 0 {
        return Ok(Reply::Continue);
    }
    let path = call.path(1)?;
    let nofollow = flags & libc::AT_SYMLINK_NOFOLLOW != 0;
    if flags & OPEN_TREE_CLONE == 0 {
        let mut native = libc::O_PATH | (flags & libc::O_CLOEXEC);
        if nofollow {
            native |= libc::O_NOFOLLOW;
        }
        return open_path(call, call.int(0), &path, OpenFlags { native }, 0);
    }
    let last = if nofollow { Final::NoFollow } else { Final::Follow };
    match call.resolve(call.int(0), &path, last)? {
        Found::Kernel(_) => Ok(Reply::Continue),
        Found::Refused(errno) => Err(errno.into()),
        // A virtual object is in no mount of the tracee that could be cloned.
        Found::OnBehalf(_) | Found::Virtual(_) => Err(Errno::EINVAL.into()),
    }
}
