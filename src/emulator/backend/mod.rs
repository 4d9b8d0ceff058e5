//! Backends: how calls reach the engine.
//!
//! A backend starts the program under a filter made from the engine's table and serves every trapped call
//! exactly once. Handlers never ask which backend runs.

pub mod notify;
