//! name_to_handle_at(2): virtual objects have no handles, as sysctl files do not.

use super::for_paths;
use crate::emulator::errno::Errno;
use crate::emulator::failure::Failure;
use crate::emulator::reply::Reply;
use crate::emulator::resolve::{Final, Found};
use crate::emulator::syscall::{Call, Syscall};

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![Syscall::new("name_to_handle_at", for_paths, name_to_handle_at)]
}

fn name_to_handle_at(call: &Call<'_>) -> Result<Reply, Failure> {
    let last = if call.int(4) & libc::AT_SYMLINK_FOLLOW != 0 { Final::Follow } else { Final::NoFollow };
    match call.resolve(call.int(0), &call.path(1)?, last)? {
        Found::Kernel(_) => Ok(Reply::Continue),
        Found::Refused(errno) => Err(errno.into()),
        Found::OnBehalf(_) | Found::Virtual(_) => Err(Errno::EOPNOTSUPP.into()),
    }
}
