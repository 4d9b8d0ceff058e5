//! Processes: pidfds, numbers in pid namespaces, subreaper, no_new_privs.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno as OsErrno;
use nix::sys::utsname::UtsName;

use super::{OsResult, check, tape};

/// PIDFD_THREAD (Linux 6.9).
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// pidfd_open(2) for a thread; on kernels without PIDFD_THREAD only for a thread group leader.
///
/// # Errors
/// ESRCH: no such task. EINVAL, ENOENT: not a leader on an older kernel.
pub fn pidfd_open_thread(tid: u32) -> OsResult<OwnedFd> {
    match pidfd_open(tid, PIDFD_THREAD) {
        Err(OsErrno::EINVAL) => pidfd_open(tid, 0),
        other => other,
    }
}

fn pidfd_open(tid: u32, flags: libc::c_uint) -> OsResult<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, tid, flags) })?;
    let fd = i32::try_from(fd).map_err(|_| OsErrno::EOVERFLOW)?;
    // SAFETY: the kernel just created this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_getfd(2): a duplicate of another task's descriptor, sharing its file description.
///
/// # Errors
/// EBADF: no such descriptor there. ESRCH: the task is gone. EPERM: not allowed.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> OsResult<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| OsErrno::EOVERFLOW)?;
    // SAFETY: as in `pidfd_open`.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// NS_GET_PID_FROM_PIDNS (`linux/nsfs.h`, Linux 6.11): `_IOR(0xb7, 6, int)`.
const NS_GET_PID_FROM_PIDNS: libc::Ioctl = 0x8004_b706;

/// The number, in the caller's pid namespace, of the task that has this number in another one.
///
/// # Errors
/// ESRCH: no such task there. ENOTTY: the kernel is older.
pub fn pid_from_namespace(namespace: BorrowedFd<'_>, pid: i32) -> OsResult<i32> {
    let ask = || {
        // SAFETY: the number is passed by value; no memory is.
        check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PID_FROM_PIDNS, pid) })
    };
    tape::os(|| format!("pid:{pid} {}", tape::place(Some(namespace), b"")), ask)
}

/// NS_GET_USERNS and NS_GET_PARENT (`linux/nsfs.h`).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;

fn related_namespace(namespace: BorrowedFd<'_>, which: libc::Ioctl) -> OsResult<OwnedFd> {
    let ask = || {
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::ioctl(namespace.as_raw_fd(), which) })?;
        // SAFETY: as in `pidfd_open`.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    tape::fd(|| format!("namespace {}/{which:#x}", tape::place(Some(namespace), b"")), ask)
}

/// The user namespace that owns a namespace (ioctl_ns(2)).
///
/// # Errors
/// EPERM: it is outside of the caller's own.
pub fn owner_of_namespace(namespace: BorrowedFd<'_>) -> OsResult<OwnedFd> {
    related_namespace(namespace, NS_GET_USERNS)
}

/// The user namespace around a user namespace.
///
/// # Errors
/// EPERM: it is outside of the caller's own.
pub fn parent_of_namespace(namespace: BorrowedFd<'_>) -> OsResult<OwnedFd> {
    related_namespace(namespace, NS_GET_PARENT)
}

/// sethostname(2) of the calling thread's UTS namespace.
///
/// # Errors
/// As the man page.
pub fn set_host_name(name: &[u8]) -> OsResult<()> {
    super::count();
    nix::unistd::sethostname(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))
}

/// setdomainname(2) of the calling thread's UTS namespace.
///
/// # Errors
/// As the man page.
pub fn set_domain_name(name: &[u8]) -> OsResult<()> {
    // SAFETY: the bytes are live, and the length is theirs.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

fn prctl(option: i32, arg: libc::c_ulong) -> OsResult<()> {
    // SAFETY: only options that take a plain number are used here.
    check(unsafe { libc::prctl(option, arg, 0, 0, 0) }).map(drop)
}

/// Makes orphaned descendants children of this process (prctl(2) PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// None in practice.
pub fn become_subreaper() -> OsResult<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Sets no_new_privs. Async-signal-safe.
///
/// # Errors
/// None in practice.
pub fn set_no_new_privs() -> OsResult<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Asks for `signal` when the parent dies. Async-signal-safe.
///
/// # Errors
/// None in practice.
pub fn set_parent_death_signal(signal: i32) -> OsResult<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong)
}

/// Whether the kernel has a capability of this number (prctl(2) PR_CAPBSET_READ).
pub fn knows_capability(number: u32) -> bool {
    prctl(libc::PR_CAPBSET_READ, number.into()).is_ok()
}

/// Sets the action of a signal to the default.
pub fn restore_default_action(signal: i32) {
    // SAFETY: plain old data; SIG_DFL needs no handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = libc::SIG_DFL;
    // SAFETY: the struct is live and only read; the old action is not asked for.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
}

/// uname(2) of the calling thread.
///
/// # Errors
/// None in practice.
pub fn uname() -> OsResult<UtsName> {
    super::count();
    nix::sys::utsname::uname()
}

/// Whether this process has CAP_SYS_ADMIN in its user namespace, which lets it install filters without
/// no_new_privs.
pub fn has_cap_sys_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps & (1 << 21) != 0)
}
