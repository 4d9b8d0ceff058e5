//! Behaviour: what the answer to a call is. Files here import from [`crate::emulator`], never the reverse.
