//! access(2), faccessat(2), faccessat2(2).

use std::os::fd::AsFd;

use super::for_paths;
use crate::emulator::context::Who;
use crate::emulator::errno::Errno;
use crate::emulator::failure::Failure;
use crate::emulator::reply::Reply;
use crate::emulator::resolve::{Final, Found};
use crate::emulator::store;
use crate::emulator::sys::file;
use crate::emulator::syscall::{Call, Syscall};
use crate::emulator::write;

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![
        Syscall::new("access", for_paths, |call| access(call, libc::AT_FDCWD, 0, call.int(1), 0)),
        Syscall::new("faccessat", for_paths, |call| access(call, call.int(0), 1, call.int(2), 0)),
        Syscall::new("faccessat2", for_paths, |call| access(call, call.int(0), 1, call.int(2), call.int(3))),
    ]
}

const FLAGS: i32 = libc::AT_EACCESS | libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;

fn access(call: &Call<'_>, dirfd: i32, path_arg: usize, mode: i32, flags: i32) -> Result<Reply, Failure> {
    if mode & !7 != 0 || flags & !FLAGS != 0 || call.args[path_arg] == 0 {
        return Ok(Reply::Continue);
    }
    let path = call.path(path_arg)?;
    let last = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Final::NoFollow } else { Final::Follow };
    let who = if flags & libc::AT_EACCESS != 0 { Who::Effective } else { Who::Real };
    match call.resolve(dirfd, &path, last)? {
        Found::Kernel(_) => Ok(Reply::Continue),
        Found::Refused(errno) => Err(errno.into()),
        Found::OnBehalf(real) => {
            // AT_EACCESS, because the thread takes the caller's file system ids for the time.
            let look =
                || file::access(Some(real.fd.as_fd()), c"", mode, libc::AT_EMPTY_PATH | libc::AT_EACCESS);
            let allowed = call.emulator.resolver.with_rights_of(call.tid, look)?;
            allowed.map_err(|errno| Errno::from_raw(errno as i32))?;
            Ok(Reply::success())
        }
        Found::Virtual(object) => {
            call.emulator.permit(call.tid, &object, mode.cast_unsigned(), who)?;
            let is_device = call.emulator.like(call.tid, &object)?.is_some() || store::is_blocking(&object);
            if mode & libc::W_OK != 0 && !is_device && !write::is_writable(&object) {
                return Err(Errno::EROFS.into());
            }
            Ok(Reply::success())
        }
    }
}
