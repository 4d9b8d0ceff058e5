//! seccomp(2), seccomp_unotify(2): the listener's ioctls.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno as OsErrno;

use super::{OsResult, check};

/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19).
pub const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// One received notification.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Cookie that answers refer to.
    pub id: u64,
    /// Thread id in the pid namespace of the thread that received it; 0 when it is not visible there.
    pub tid: u32,
    /// AUDIT_ARCH_* of the call.
    pub arch: u32,
    /// System call number in that architecture's table.
    pub nr: u32,
    /// Raw arguments.
    pub args: [u64; 6],
}

/// A listener descriptor.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Listener(fd)
    }
}

// Request codes as in linux/seccomp.h; libc carries them only as macros on some targets.
const fn ioctl_code(direction: u64, nr: u64, size: usize) -> libc::Ioctl {
    ((direction << 30) | ((size as u64) << 16) | ((b'!' as u64) << 8) | nr) as libc::Ioctl
}
const READ_WRITE: u64 = 3;
const WRITE: u64 = 1;
const NOTIF_RECV: libc::Ioctl = ioctl_code(READ_WRITE, 0, size_of::<libc::seccomp_notif>());
const NOTIF_SEND: libc::Ioctl = ioctl_code(READ_WRITE, 1, size_of::<libc::seccomp_notif_resp>());
const NOTIF_ID_VALID: libc::Ioctl = ioctl_code(WRITE, 2, 8);
const NOTIF_ADDFD: libc::Ioctl = ioctl_code(WRITE, 3, size_of::<libc::seccomp_notif_addfd>());
const NOTIF_SET_FLAGS: libc::Ioctl = ioctl_code(WRITE, 4, 8);
const FD_SYNC_WAKE_UP: u64 = 1;

impl Listener {
    /// Blocks until a call is trapped.
    ///
    /// # Errors
    /// ENOENT: the caller died or was interrupted before it could be received. EINTR: a signal.
    pub fn receive(&self) -> OsResult<Notification> {
        // SAFETY: plain old data, all zero is the state that NOTIF_RECV demands.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: no safe wrapper exists; `raw` is a live, exclusively borrowed struct of the size that the
        // request code names.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_RECV, &mut raw) })?;
        Ok(Notification {
            id: raw.id,
            tid: raw.pid,
            arch: raw.data.arch,
            nr: raw.data.nr as u32,
            args: raw.data.args,
        })
    }

    /// Whether the caller still waits for this answer.
    pub fn is_valid(&self, id: u64) -> bool {
        // SAFETY: as in `receive`; the kernel only reads the eight bytes.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_ID_VALID, &id) }).is_ok()
    }

    fn send(&self, mut response: libc::seccomp_notif_resp) -> OsResult<()> {
        // SAFETY: as in `receive`.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_SEND, &mut response) }).map(drop)
    }

    /// Lets the kernel run the call unchanged.
    ///
    /// # Errors
    /// ENOENT: the caller is gone. EINPROGRESS: already answered.
    pub fn send_continue(&self, id: u64) -> OsResult<()> {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.send(libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
    }

    /// Makes the call return `value`.
    ///
    /// # Errors
    /// As [`Listener::send_continue`].
    pub fn send_value(&self, id: u64, value: i64) -> OsResult<()> {
        self.send(libc::seccomp_notif_resp { id, val: value, error: 0, flags: 0 })
    }

    /// Makes the call fail with a positive errno number.
    ///
    /// # Errors
    /// As [`Listener::send_continue`].
    pub fn send_error(&self, id: u64, errno: i32) -> OsResult<()> {
        self.send(libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 })
    }

    /// Installs `fd` at the caller's lowest free number and makes the call return that number, in one step.
    ///
    /// # Errors
    /// EMFILE: the caller's table is full. EBADF: `fd` was opened with O_PATH. ENOENT: the caller is gone.
    pub fn send_fd(&self, id: u64, fd: BorrowedFd<'_>, close_on_exec: bool) -> OsResult<()> {
        let request = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: fd.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: as in `receive`; the kernel only reads the struct.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_ADDFD, &request) }).map(drop)
    }

    /// Wakes the supervisor on the caller's CPU and the caller on the supervisor's (Linux 6.6).
    ///
    /// # Errors
    /// ENOTTY or EINVAL on kernels without it.
    pub fn set_sync_wake_up(&self) -> OsResult<()> {
        // The argument is the flag word itself, not a pointer to it.
        // SAFETY: no memory is passed.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_SET_FLAGS, FD_SYNC_WAKE_UP) }).map(drop)
    }
}

/// One instruction of a classic BPF program.
pub type Instruction = libc::sock_filter;

/// Installs a filter with a listener on the calling thread and gives the listener.
///
/// Async-signal-safe: called between fork and exec.
///
/// # Errors
/// EBUSY: a listener exists already in the chain. EACCES: neither CAP_SYS_ADMIN nor no_new_privs. EINVAL: an
/// unknown flag (an older kernel) or no user notification at all.
pub fn install_with_listener(program: &[Instruction], extra_flags: libc::c_ulong) -> OsResult<OwnedFd> {
    let header = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | extra_flags;
    // SAFETY: no safe wrapper exists; header and program outlive the call, which only reads them.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &header) })?;
    let fd = i32::try_from(fd).map_err(|_| OsErrno::EOVERFLOW)?;
    // SAFETY: the kernel just created this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Installs a filter without a listener on the calling thread.
///
/// # Errors
/// EACCES: neither CAP_SYS_ADMIN nor no_new_privs. EINVAL: a malformed program.
pub fn install(program: &[Instruction]) -> OsResult<()> {
    let header = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: as in `install_with_listener`.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &header) }).map(drop)
}

/// Whether the kernel knows these filter flags.
///
/// With flags that it knows it goes on to read the program, which is not there.
pub fn supports_flags(flags: libc::c_ulong) -> bool {
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel finds the null pointer and fails with EFAULT; nothing is installed.
    let result =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing) });
    result == Err(OsErrno::EFAULT)
}
