//! What the tracee sees when a call fails.
//!
//! Deliberately not convertible from any other error type: a failure of the supervisor's own system call
//! must never become the tracee's result by a stray `?`.

use std::fmt;

/// An errno(3) value for the tracee, always in `1..=4095`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(missing_docs, reason = "the names are those of errno(3)")]
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$name);)*
        }
        const NAMES: &[(i32, &str)] = &[$((libc::$name, stringify!($name))),*];
    };
}

errnos! {
    EPERM ENOENT EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL
    ENFILE EMFILE ENOSPC EROFS ERANGE ENAMETOOLONG ENOSYS ELOOP EOVERFLOW EOPNOTSUPP ENXIO E2BIG ESRCH
}

impl Errno {
    /// Wraps a raw positive errno number; anything outside `1..=4095` becomes EIO.
    pub fn from_raw(raw: i32) -> Self {
        if (1..=4095).contains(&raw) { Errno(raw) } else { Errno::EIO }
    }

    /// The positive number.
    pub fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(raw, _)| *raw == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
