//! Reading extended attributes of virtual objects: there are none, as for any file of procfs.

use super::for_paths;
use crate::emulator::errno::Errno;
use crate::emulator::failure::Failure;
use crate::emulator::reply::Reply;
use crate::emulator::resolve::{Final, Found};
use crate::emulator::syscall::{Call, Syscall};

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    let get =
        |name, last| Syscall::new(name, for_paths, move |call| answer(call, last, Err(Errno::EOPNOTSUPP)));
    let list = |name, last| Syscall::new(name, for_paths, move |call| answer(call, last, Ok(())));
    vec![
        get("getxattr", Final::Follow),
        get("lgetxattr", Final::NoFollow),
        list("listxattr", Final::Follow),
        list("llistxattr", Final::NoFollow),
    ]
}

fn answer(call: &Call<'_>, last: Final, of_virtual: Result<(), Errno>) -> Result<Reply, Failure> {
    match call.resolve(libc::AT_FDCWD, &call.path(0)?, last)? {
        Found::Kernel(_) => Ok(Reply::Continue),
        Found::Refused(errno) => Err(errno.into()),
        Found::OnBehalf(_) | Found::Virtual(_) => {
            of_virtual?;
            Ok(Reply::success())
        }
    }
}
