//! Policies: the public, declarative description of the virtual tree (`schema = 1`).
//!
//! [`model`] holds the merged result that the emulator consumes; everything about the text format (parsing,
//! diagnostics, includes, merging, import, JSON Schema) lives in the sibling modules.

pub mod model;

pub use model::*;
