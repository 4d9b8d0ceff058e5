//! inotify_add_watch(2) on virtual objects: the watch is on the carrier's inode.

use std::os::fd::{AsFd, BorrowedFd};

use super::for_paths;
use crate::emulator::context::Who;
use crate::emulator::errno::Errno;
use crate::emulator::failure::{Failure, OrFault};
use crate::emulator::reply::Reply;
use crate::emulator::resolve::{Final, Found};
use crate::emulator::syscall::{Call, Syscall};

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![Syscall::new("inotify_add_watch", for_paths, add_watch)]
}

fn add_watch(call: &Call<'_>) -> Result<Reply, Failure> {
    let mask = call.args[2] as u32;
    let path = call.path(1)?;
    let last = if mask & libc::IN_DONT_FOLLOW != 0 { Final::NoFollow } else { Final::Follow };
    match call.resolve(libc::AT_FDCWD, &path, last)? {
        Found::Kernel(_) => Ok(Reply::Continue),
        Found::Refused(errno) => Err(errno.into()),
        Found::OnBehalf(real) => watch(call, real.fd.as_fd(), mask),
        Found::Virtual(object) => {
            if mask & libc::IN_ONLYDIR != 0 && !object.is_dir() {
                return Err(Errno::ENOTDIR.into());
            }
            call.emulator.permit(call.tid, &object, 4, Who::Effective)?;
            let fd = call.emulator.carrier.open_path(&object).or_fault("open a virtual object")?;
            watch(call, fd.as_fd(), mask)
        }
    }
}

fn watch(call: &Call<'_>, target: BorrowedFd<'_>, mask: u32) -> Result<Reply, Failure> {
    // A link that leads to the target has to be followed.
    let added = call.tracee.watch(call.int(0), target, mask & !libc::IN_DONT_FOLLOW);
    let watch = added.map_err(|errno| Errno::from_raw(errno as i32))?;
    Ok(Reply::Value { value: watch.into(), out: None })
}
