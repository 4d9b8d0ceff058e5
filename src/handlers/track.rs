//! Calls that change where paths lead. The kernel runs them; what was remembered about paths is dropped.

use super::for_paths;
use crate::emulator::failure::Failure;
use crate::emulator::reply::Reply;
use crate::emulator::syscall::{ArgTest, Call, Syscall};

/// Flags of unshare(2) after which a task may see other files or another host name, or have other rights.
const UNSHARES: [u32; 4] =
    [libc::CLONE_NEWNS as u32, libc::CLONE_FS as u32, libc::CLONE_NEWUSER as u32, libc::CLONE_NEWUTS as u32];
const UNSHARE_TESTS: &[ArgTest] = &[
    ArgTest { arg: 0, mask: UNSHARES[0], value: UNSHARES[0] },
    ArgTest { arg: 0, mask: UNSHARES[1], value: UNSHARES[1] },
    ArgTest { arg: 0, mask: UNSHARES[2], value: UNSHARES[2] },
    ArgTest { arg: 0, mask: UNSHARES[3], value: UNSHARES[3] },
];

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    let names = [
        "chroot",
        "pivot_root",
        "mount",
        "umount",
        "umount2",
        "setns",
        "symlink",
        "symlinkat",
        "link",
        "linkat",
        "rename",
        "renameat",
        "renameat2",
    ];
    let mut rows: Vec<Syscall> =
        names.into_iter().map(|name| Syscall::new(name, for_paths, invalidate)).collect();
    rows.push(Syscall { only_if: UNSHARE_TESTS.into(), ..Syscall::new("unshare", for_paths, invalidate) });
    rows
}

/// Drops what was remembered and lets the call through.
pub(super) fn invalidate(call: &Call<'_>) -> Result<Reply, Failure> {
    call.emulator.resolver.views.invalidate();
    Ok(Reply::Continue)
}
