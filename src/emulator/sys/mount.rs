//! Mounts that are attached nowhere: fsopen(2), fsconfig(2), fsmount(2), open_tree(2).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno as OsErrno;

use super::{OsResult, check};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

fn owned(fd: i64) -> OsResult<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| OsErrno::EOVERFLOW)?;
    // SAFETY: called only with a descriptor that the kernel just created for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn fsconfig(
    fs: BorrowedFd<'_>,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> OsResult<()> {
    let ptr = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: no safe wrapper exists; both strings are NUL-terminated or null, as the command wants.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, ptr(key), ptr(value), 0) })
        .map(drop)
}

/// Who may use a FUSE mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only processes of the user who made it.
    Owner,
    /// Everybody in the mount's user namespace.
    Everybody,
}

/// Makes a FUSE superblock served through `device` (an open `/dev/fuse`) and a mount of it that is attached
/// nowhere. `source` is what mountinfo would show.
///
/// # Errors
/// EPERM: not allowed to mount. ENODEV: no FUSE in this kernel. ENOSYS: no new mount API.
pub fn detached_fuse(device: BorrowedFd<'_>, source: &CStr, access: Access) -> OsResult<OwnedFd> {
    // SAFETY: no safe wrapper exists; the name is NUL-terminated.
    let fs = owned(check(unsafe { libc::syscall(libc::SYS_fsopen, c"fuse".as_ptr(), FSOPEN_CLOEXEC) })?)?;
    let fs = std::os::fd::AsFd::as_fd(&fs);
    let number = |value: u32| std::ffi::CString::new(value.to_string()).expect("digits hold no NUL");
    let set = |key: &CStr, value: &CStr| fsconfig(fs, FSCONFIG_SET_STRING, Some(key), Some(value));
    set(c"source", source)?;
    set(c"fd", &number(device.as_raw_fd().cast_unsigned()))?;
    set(c"rootmode", c"40000")?;
    set(c"user_id", &number(nix::unistd::geteuid().as_raw()))?;
    set(c"group_id", &number(nix::unistd::getegid().as_raw()))?;
    if access == Access::Everybody {
        fsconfig(fs, FSCONFIG_SET_FLAG, Some(c"allow_other"), None)?;
    }
    fsconfig(fs, FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: no safe wrapper exists; no memory is passed.
    owned(check(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })?)
}

/// A copy of the mount that a directory is in, without what is mounted further in; its root is the directory.
///
/// # Errors
/// EPERM: not allowed to mount. ENOSYS: no new mount API. Otherwise as open(2).
pub fn detached_copy(path: &CStr) -> OsResult<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    // SAFETY: no safe wrapper exists; the path is NUL-terminated.
    owned(check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?)
}
