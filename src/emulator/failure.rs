//! Why a call got no answer from a handler.
//!
//! Three different things that must not be mixed: what the tracee is to see ([`Errno`]), the supervisor's
//! own failure ([`Failure::Fault`]), and a tracee that died meanwhile ([`Failure::Gone`]). A failed system
//! call of the supervisor becomes one of them only by a written-out choice.

use nix::errno::Errno as OsErrno;

use super::errno::Errno;
use super::sys::OsResult;

/// Why a call got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The call fails for the tracee.
    Guest(Errno),
    /// The supervisor could not do its work: what it tried, and why not.
    Fault(&'static str, OsErrno),
    /// The tracee is gone; whatever is answered is dropped.
    Gone,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::Guest(errno)
    }
}

/// Turns the supervisor's own failures into [`Failure`], saying what was tried.
pub trait OrFault<T> {
    /// ESRCH and ENOENT on a task's `/proc` entries mean that it is gone; anything else is a fault.
    ///
    /// # Errors
    /// [`Failure::Gone`] or [`Failure::Fault`].
    fn or_gone(self, what: &'static str) -> Result<T, Failure>;

    /// Any failure is a fault.
    ///
    /// # Errors
    /// [`Failure::Fault`].
    fn or_fault(self, what: &'static str) -> Result<T, Failure>;
}

impl<T> OrFault<T> for OsResult<T> {
    fn or_gone(self, what: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| match errno {
            OsErrno::ESRCH | OsErrno::ENOENT => Failure::Gone,
            errno => Failure::Fault(what, errno),
        })
    }

    fn or_fault(self, what: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Fault(what, errno))
    }
}
