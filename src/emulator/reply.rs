//! What a handler answers. Only the engine turns a reply into writes to the tracee and an answer to the
//! kernel.

use std::os::fd::OwnedFd;

/// Bytes to store in the tracee before the call returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// Address in the tracee.
    pub addr: u64,
    /// What to store.
    pub bytes: Vec<u8>,
}

/// The answer to a call.
#[derive(Debug)]
pub enum Reply {
    /// The kernel runs the call unchanged.
    Continue,
    /// The call returns this value after `out` was stored; EFAULT when that is not possible.
    Value {
        /// Return value, not negative.
        value: i64,
        /// What to store.
        out: Option<Out>,
    },
    /// The call returns a new descriptor, at the lowest free number.
    Fd {
        /// The supervisor's own descriptor of the file.
        file: OwnedFd,
        /// Whether the tracee asked for O_CLOEXEC.
        close_on_exec: bool,
    },
}

impl Reply {
    /// Returns 0.
    pub fn success() -> Self {
        Reply::Value { value: 0, out: None }
    }

    /// Returns 0 after storing `bytes` at `addr`.
    pub fn stored(addr: u64, bytes: Vec<u8>) -> Self {
        Reply::Value { value: 0, out: Some(Out { addr, bytes }) }
    }
}
