//! What a backend does with the caller's own descriptors on behalf of a handler.

use std::os::fd::BorrowedFd;

use super::sys::OsResult;

/// The caller of a trapped call, as far as handlers may touch it.
pub trait Tracee {
    /// lseek(2) of one of its descriptors.
    ///
    /// # Errors
    /// As the man page; EBADF also where descriptors of other tasks cannot be reached.
    fn seek(&self, fd: i32, offset: i64, whence: i32) -> OsResult<i64>;

    /// inotify_add_watch(2) of its inotify descriptor on an object that the supervisor holds open.
    ///
    /// # Errors
    /// As the man page; EBADF also where descriptors of other tasks cannot be reached.
    fn watch(&self, inotify: i32, target: BorrowedFd<'_>, mask: u32) -> OsResult<i32>;

    /// From now on calls of its process, and of what that starts, are trapped that look at descriptors
    /// ([`Syscall::looks`](super::syscall::Syscall::looks)), if they are not anyway. Where that is not to be had, a log
    /// says so.
    fn watch_looks(&self);
}
