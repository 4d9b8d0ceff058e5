//! See `sysemu_fuzz::encode`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::encode);
