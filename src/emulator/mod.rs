//! Mechanism: how a call reaches a handler, how a path is resolved as the tracee sees it, and how the
//! answer returns. Nothing here knows which file or call means what; that is [`crate::handlers`].

pub mod codec;
pub mod errno;
pub mod provider;
