//! Providers of computed content.

use crate::emulator::provider::Providers;

/// Every built-in provider.
pub fn all() -> Providers {
    Providers::default()
}
