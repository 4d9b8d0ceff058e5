//! Policies: the public, declarative description of the virtual tree (`schema = 1`).
//!
//! [`model`] holds the merged result that the emulator consumes. [`keys`] is the format as a table, [`parse`]
//! and [`rows`] read one file ([`rules`]: what writes have to obey), [`load`] finds, includes and merges files, `expand` adds the rows that follow
//! from others, `check` finds contradictions, [`show`] prints a merged policy, [`import`] reads
//! sysctl.conf(5), [`mirror`] takes the host's values, [`schema`] gives the JSON Schema.

pub mod builtin;
mod check;
pub mod diagnostic;
mod expand;
pub mod import;
pub mod keys;
pub mod load;
pub mod mirror;
pub mod model;
pub mod parse;
pub mod rows;
pub mod rules;
pub mod schema;
pub mod show;

pub use diagnostic::{Diagnostic, PolicyError};
pub use load::Loader;
pub use model::*;
