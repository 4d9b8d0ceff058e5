//! `sysemu` runs a program unchanged and answers the system calls by which it looks at `/proc/sys`, other
//! proc and sys files, the kernel version and file system types from an in-memory virtual tree that policy
//! files describe.
//!
//! It is a compatibility layer, **not a security boundary**: a call that is let through re-reads the
//! tracee's memory in the kernel.

pub mod builder;
pub mod emulator;
pub mod handlers;
pub mod launcher;
pub mod policy;
pub mod replay;

pub use builder::{BuildError, Builder};
pub use emulator::supervisor::{SpawnError, StartOptions, Supervised, Supervisor};
pub use policy::Policy;
