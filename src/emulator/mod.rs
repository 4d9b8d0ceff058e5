//! Mechanism: how a call reaches a handler, how a path is resolved as the tracee sees it, and how the
//! answer returns. Nothing here knows which file or call means what; that is [`crate::handlers`].
//!
//! The way of a call: [`backend`] receives it, [`engine`] looks up its row in the [`syscall`] table and runs
//! the handler on a read-only [`syscall::Call`], the handler asks [`resolve`] what a path leads to and
//! [`store`] or [`carrier`] for the object, and the engine turns the [`reply`] into writes and an answer.

pub mod abi;
pub mod backend;
pub mod carrier;
pub mod codec;
pub mod confine;
pub mod context;
pub mod engine;
pub mod errno;
pub mod failure;
pub mod filter;
pub mod host;
pub mod object;
pub mod probe;
pub mod provider;
pub mod record;
pub mod reply;
pub mod resolve;
pub mod scope;
pub mod state;
pub mod stats;
pub mod store;
pub mod supervisor;
pub mod sys;
pub mod syscall;
pub mod tracee;
pub mod tree;
pub mod values;
pub mod write;
