//! See `sysemu_fuzz::decode`.

#![cfg_attr(fuzzing, no_main)]

sysemu_fuzz::target!(sysemu_fuzz::decode);
