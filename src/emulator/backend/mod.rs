//! Backends: how calls reach the engine.
//!
//! A backend starts the program under a filter made from the engine's table and serves every trapped call
//! exactly once. Handlers never ask which backend runs.

use super::probe;

pub mod notify;
pub mod ptrace;

/// Which backend to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The first that works: notify, then ptrace.
    #[default]
    Auto,
    /// seccomp user notification or nothing.
    Notify,
    /// ptrace even where notification would work.
    Ptrace,
}

impl BackendChoice {
    /// What is chosen on this host; not [`BackendChoice::Auto`].
    pub fn resolved(self) -> Self {
        match self {
            BackendChoice::Auto if probe::has_notify() => BackendChoice::Notify,
            BackendChoice::Auto => BackendChoice::Ptrace,
            choice => choice,
        }
    }
}
