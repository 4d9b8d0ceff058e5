//! io_uring_setup(2): operations submitted through a ring are not seen by seccomp, so rings are off unless
//! the policy allows them. Programs treat ENOSYS as an old kernel and do without.

use crate::emulator::errno::Errno;
use crate::emulator::reply::Reply;
use crate::emulator::syscall::{Activation, Syscall};
use crate::policy::Policy;

fn active(policy: &Policy) -> Activation {
    let has_paths = super::for_paths(policy) == Activation::Trap;
    if has_paths && !policy.options.io_uring { Activation::Refuse(Errno::ENOSYS) } else { Activation::Off }
}

/// The rows of this family.
pub fn rows() -> Vec<Syscall> {
    vec![Syscall::new("io_uring_setup", active, |_| Ok(Reply::Continue))]
}
